-- Rebuild a usage counter that is behind what is stored, and begin a new generation of it: whoever read the one before
-- may be about to add an event that the new value holds already, and is refused.
--
-- KEYS[1]  string, an integer: the counter
-- KEYS[2]  string: its generation
-- ARGV     1 the stored value; 2 seconds until the keys may go; 3 a generation that was never used
-- Returns  1 if it was raised, 0 if it is not behind or is no counter
local present = redis.call('GET', KEYS[1])
if present then
    -- As text: a number of Lua is exact to 2^53 only.
    if not string.match(present, '^%d+$') or #present > #ARGV[1] or (#present == #ARGV[1] and present >= ARGV[1]) then
        return 0
    end
end
redis.call('SET', KEYS[2], ARGV[3], 'EX', ARGV[2])
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return 1
