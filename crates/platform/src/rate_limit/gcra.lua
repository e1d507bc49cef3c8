-- Counts requests in every bucket of KEYS (GCRA), or in none: all in one, so that replicas can't overdraw together.
-- ARGV: the time in microseconds (empty: this server's), how many requests, then for each bucket the microseconds that one
-- costs and the requests at once.
-- Answers {1, what is left in the emptiest} or {0, microseconds to wait for all}. A bucket holds the time at which it is
-- full again.
local now = tonumber(ARGV[1])
if not now then
    local time = redis.call('TIME')
    now = time[1] * 1000000 + time[2]
end
local count = tonumber(ARGV[2])
local after, left, wait = {}, math.huge, 0
for place, key in ipairs(KEYS) do
    local cost, burst = tonumber(ARGV[2 * place + 1]), tonumber(ARGV[2 * place + 2])
    local latest = now + cost * burst
    local full = tonumber(redis.call('GET', key)) or now
    -- No bucket can be emptier than empty, unless the clock was set back.
    after[place] = math.max(math.min(full, latest), now) + cost * count
    wait = math.max(wait, after[place] - latest)
    left = math.min(left, math.floor((latest - after[place]) / cost))
end
if wait > 0 then
    return {0, wait}
end
for place, key in ipairs(KEYS) do
    redis.call('SET', key, string.format('%.0f', after[place]), 'PX', math.ceil((after[place] - now) / 1000))
end
return {1, left}
