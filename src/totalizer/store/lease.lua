-- Lend a process a part of what an organisation may still use in a window.
--
-- KEYS[1]  string, an integer: what is used or lent of one limit in one window, of all processes; it ends with the window
-- ARGV     1 the limit; 2 needed now; 3 wanted, 0 or more; 4 used without asking, while there was no answer;
--          5 all that this process was lent or took in this window; 6 milliseconds until the key may go
-- Returns  what is lent, 0 if nothing is left; and what is left after that
local limit, needed, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
-- A server that lost its memory does not know of what this process has had.
local used = math.max(tonumber(redis.call('GET', KEYS[1]) or '0') + tonumber(ARGV[4]), tonumber(ARGV[5]))
local left = limit - used
local lent = 0
if left > 0 then
    -- Ever smaller parts towards the end, so that little lies with one process while another has none.
    lent = math.min(left, math.max(needed, math.min(wanted, math.floor(left / 8))))
end
redis.call('SET', KEYS[1], string.format('%.0f', used + lent), 'PX', ARGV[6])
return {lent, math.max(left - lent, 0)}
