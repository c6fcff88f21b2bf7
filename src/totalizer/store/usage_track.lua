-- Add to a usage counter, unless it was rebuilt since the sender looked.
--
-- KEYS[1]  string, an integer: the counter
-- KEYS[2]  string: its generation, another one after each time that the counter was rebuilt from the events
-- ARGV     1 how much; 2 seconds until the keys may go; 3 the generation that the sender read before the event was on
--          disk; 4 a generation that was never used
-- Returns  1 and the new value if it was added, else 0 and the generation that there is
local generation = redis.call('GET', KEYS[2])
if generation ~= ARGV[3] then
    if generation then
        return {0, generation}
    end
    if redis.call('EXISTS', KEYS[1]) == 1 then
        -- Only the generation was lost. The counter may hold what this sender is about to add.
        redis.call('SET', KEYS[2], ARGV[4], 'EX', ARGV[2])
        return {0, ARGV[4]}
    end
    redis.call('SET', KEYS[2], ARGV[3], 'EX', ARGV[2])
end
redis.call('INCRBY', KEYS[1], ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[2])
redis.call('EXPIRE', KEYS[2], ARGV[2])
-- As text: a number of Lua is exact to 2^53 only.
return {1, redis.call('GET', KEYS[1])}
