-- Attempts to prove a password, as rate_limit/attempts.rs has them, each step in one.
-- KEYS: failures of the account from the address, the account's budget, whether the address is known to it, the pace of
-- strangers of the address's network, the pace of all strangers. Budget and paces hold when they are whole again.
-- ARGV: the step (reserve, succeeded, give_back), the time in microseconds (empty: this server's), then of the rule: free
-- failures, first wait, longest wait; cost of one and number at once of the budget, of the network's pace and of the pace
-- of all, waits and costs in microseconds; in milliseconds how long failures and known addresses are kept. Then what the
-- attempt took, as `reserve` told, for the other steps; zeros where nothing was taken.
-- `reserve` answers the microseconds to wait, and if those are 0: the time, the time of the attempt before (0: none), what
-- was taken of the budget, and whether the paces were taken from. The others answer zeros.
local step, now = ARGV[1], tonumber(ARGV[2])
local free, first, longest = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local keep_failures, keep_known = ARGV[12], ARGV[13]
if not now then
    local time = redis.call('TIME')
    now = time[1] * 1000000 + time[2]
end

local function bucket(key, place)
    local cost, burst = tonumber(ARGV[place]), tonumber(ARGV[place + 1])
    local full = tonumber(redis.call('GET', key)) or now
    local latest = now + cost * burst
    -- Out of these bounds only when the clock was set back.
    return { key = key, cost = cost, latest = latest, full = math.max(math.min(full, latest), now) }
end

local function number(value)
    return string.format('%.0f', value)
end

local function keep(kept, full)
    if full > now then
        redis.call('SET', kept.key, number(full), 'PX', math.ceil((full - now) / 1000))
    else
        redis.call('DEL', kept.key)
    end
end

local budget = bucket(KEYS[2], 6)
local of_network, of_all = bucket(KEYS[4], 8), bucket(KEYS[5], 10)

local function give_back_what_was_taken()
    keep(budget, budget.full - tonumber(ARGV[16]))
    if ARGV[17] == '1' then
        keep(of_network, of_network.full - of_network.cost)
        keep(of_all, of_all.full - of_all.cost)
    end
end

if step == 'succeeded' then
    redis.call('DEL', KEYS[1])
    redis.call('SET', KEYS[3], '1', 'PX', keep_known)
    give_back_what_was_taken()
    return {0, 0, 0, 0, 0}
end

local stored = redis.call('HMGET', KEYS[1], 'count', 'last')
local count, last = tonumber(stored[1]) or 0, tonumber(stored[2])

if step == 'give_back' then
    if count > 1 then
        -- Whoever has tried again since then waits from there.
        if last == tonumber(ARGV[14]) and ARGV[15] ~= '0' then
            last = tonumber(ARGV[15])
        end
        redis.call('HSET', KEYS[1], 'count', count - 1, 'last', number(last))
        redis.call('PEXPIRE', KEYS[1], keep_failures)
    else
        redis.call('DEL', KEYS[1])
    end
    give_back_what_was_taken()
    return {0, 0, 0, 0, 0}
end

local wait, is_stranger = 0, 0
if last and count >= free then
    -- Not beyond 2^40: the longest wait is reached long before.
    wait = math.min(last, now) + math.min(first * 2 ^ math.min(count - free, 40), longest) - now
end
if budget.full + budget.cost > budget.latest and redis.call('EXISTS', KEYS[3]) == 0 then
    is_stranger = 1
    for _, pace in ipairs({ of_network, of_all }) do
        wait = math.max(wait, pace.full + pace.cost - pace.latest)
    end
end
if wait > 0 then
    return {wait, 0, 0, 0, 0}
end
redis.call('HSET', KEYS[1], 'count', count + 1, 'last', number(now))
redis.call('PEXPIRE', KEYS[1], keep_failures)
local spent = math.min(budget.full + budget.cost, budget.latest)
keep(budget, spent)
if is_stranger == 1 then
    keep(of_network, of_network.full + of_network.cost)
    keep(of_all, of_all.full + of_all.cost)
end
return {0, now, last or 0, spent - budget.full, is_stranger}
