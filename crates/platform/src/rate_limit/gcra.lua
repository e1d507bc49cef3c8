-- Counts one request in the bucket KEYS[1] (GCRA): all in one, so that replicas can't overdraw it together.
-- ARGV: microseconds that one request costs, requests at once, and the time in microseconds (empty: this server's).
-- Answers {1, remaining} or {0, microseconds to wait}. The bucket holds the time at which it is full again.
local cost, burst, now = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
if not now then
    local time = redis.call('TIME')
    now = time[1] * 1000000 + time[2]
end
local full = tonumber(redis.call('GET', KEYS[1])) or now
-- No bucket can be emptier than empty, unless the clock was set back.
full = math.min(full, now + cost * burst)
local earliest = full - cost * (burst - 1)
if now < earliest then
    return {0, earliest - now}
end
local after = math.max(full, now) + cost
redis.call('SET', KEYS[1], string.format('%.0f', after), 'PX', math.ceil((after - now) / 1000))
return {1, math.floor((now + cost * burst - after) / cost)}
