-- Attempts to prove a password, as rate_limit/attempts.rs has them, each step in one.
-- KEYS: failures of the account from the address, the account's budget, whether the address is known to it.
-- ARGV: the step (reserve, succeeded, give_back), the time in microseconds (empty: this server's), then of the rule:
-- free failures, first wait, longest wait, cost of a failure, budget, a stranger's wait, all waits in microseconds; and
-- in milliseconds how long failures and known addresses are kept.
-- `reserve` answers 0, or the microseconds to wait; the others 0.
local step, now = ARGV[1], tonumber(ARGV[2])
local free, first, longest = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local cost, budget, stranger = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local keep_failures, keep_known = ARGV[9], ARGV[10]
if not now then
    local time = redis.call('TIME')
    now = time[1] * 1000000 + time[2]
end

local function number(value)
    return string.format('%.0f', value)
end

local whole = cost * budget
local whole_again = tonumber(redis.call('GET', KEYS[2])) or now
-- Out of these bounds only when the clock was set back.
whole_again = math.max(math.min(whole_again, now + whole), now)

local function keep_budget(until_whole)
    if until_whole > now then
        redis.call('SET', KEYS[2], number(until_whole), 'PX', math.ceil((until_whole - now) / 1000))
    else
        redis.call('DEL', KEYS[2])
    end
end

if step == 'succeeded' then
    redis.call('DEL', KEYS[1])
    redis.call('SET', KEYS[3], '1', 'PX', keep_known)
    keep_budget(whole_again - cost)
    return 0
end

local stored = redis.call('HMGET', KEYS[1], 'count', 'last')
local count, last = tonumber(stored[1]) or 0, tonumber(stored[2])

if step == 'give_back' then
    if count > 1 then
        redis.call('HSET', KEYS[1], 'count', count - 1)
        redis.call('PEXPIRE', KEYS[1], keep_failures)
    else
        redis.call('DEL', KEYS[1])
    end
    keep_budget(whole_again - cost)
    return 0
end

if last then
    last = math.min(last, now)
    local wait = 0
    if count >= free then
        -- Not beyond 2^40: the longest wait is reached long before.
        wait = math.min(first * 2 ^ math.min(count - free, 40), longest)
    end
    local is_beyond = whole_again + cost > now + whole
    if is_beyond and redis.call('EXISTS', KEYS[3]) == 0 then
        wait = math.max(wait, stranger)
    end
    if now < last + wait then
        return last + wait - now
    end
end
redis.call('HSET', KEYS[1], 'count', count + 1, 'last', number(now))
redis.call('PEXPIRE', KEYS[1], keep_failures)
keep_budget(math.min(whole_again + cost, now + whole))
return 0
