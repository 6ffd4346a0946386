-- Stands before every script: the job's keys, the clock, and what more than one script does.
-- Times are Redis time in microseconds. They are formatted with %.0f: Lua's own conversion keeps 14 digits only.

local JOB, AGENTS, REPORTS, LEASES, LOST, LEFT, HEARD, RQ, EVENTS = unpack(KEYS)
local RETAIN_S, CHANNEL = ARGV[1], ARGV[2]
local EVENTS_MAX = 10000
local SIGNED_MAX_US, SIGNED_AHEAD_US = 30000000, 1000000 -- how far a signer's clock may be behind ours, or ahead
local RQ_CLAIM_US = 10000000 -- until then somebody must have begun to sweep the RQ jobs
local SILENCE_US = 4000000 -- two beats: when nobody at all was heard for longer, it is not the agents that were away
local PATIENCE_US = 6000000 -- after that: an answer's timeout, and a beat that is tried again

local function int(number)
  return string.format('%.0f', number)
end

local time = redis.call('TIME')
local NOW_US = time[1] * 1000000 + time[2]

-- A script is done whole or not at all: a user who lacks any of these is refused before the first write.
-- Redis 6.2 can't be asked.
local NEEDED = {
  'EXISTS', 'EXPIRE', 'HDEL', 'HEXISTS', 'HGET', 'HINCRBY', 'HMGET', 'HSET', 'HSETNX', 'PTTL',
  'XADD', 'ZADD', 'ZCARD', 'ZRANGE', 'ZRANGEBYSCORE', 'ZREM', 'ZREVRANGE', 'ZSCORE',
}
local function wholly()
  for _, command in ipairs(redis.acl_check_cmd and NEEDED or {}) do
    if not redis.acl_check_cmd(command, JOB) then
      error(redis.error_reply("NOPERM this user has no permissions to run the '" .. command .. "' command"))
    end
  end
end

local function event(kind, detail, at_us)
  redis.call('XADD', EVENTS, 'MAXLEN', '~', EVENTS_MAX, '*',
    'kind', kind, 'at_us', int(at_us or NOW_US), 'detail', detail)
end

-- All keys of a job go together.
local function touch()
  for _, key in ipairs(KEYS) do
    redis.call('EXPIRE', key, RETAIN_S)
  end
end

-- The same for what thousands of agents of a job do each second: one of them is enough. `made`: a key may be new.
local function renew(made)
  local retain_ms = RETAIN_S * 1000
  if made or redis.call('PTTL', JOB) < retain_ms - math.min(1000, retain_ms / 50) then
    touch()
  end
end

local function fenced()
  return redis.call('HEXISTS', JOB, 'request') == 1
end

-- When nobody of the job was heard for a while, Redis was away, or everybody was cut off from it: leases ran out though
-- their agents live. So until patience_us nobody is given up, by anybody.
local function silent_since_us()
  local last = redis.call('ZREVRANGE', HEARD, 0, 0, 'WITHSCORES')
  return last[2] and NOW_US - last[2] > SILENCE_US and tonumber(last[2]) or nil
end

local function have_patience()
  redis.call('HSET', JOB, 'patience_us', int(NOW_US + PATIENCE_US))
end

local function patient()
  local left_us = tonumber(redis.call('HGET', JOB, 'patience_us') or 0) - NOW_US
  return left_us > 0 and left_us <= PATIENCE_US -- more: the server's clock was set back
end

-- An agent is there. Call it before anything else is made of that.
local function hear(agent_id)
  if silent_since_us() then
    have_patience()
  end
  redis.call('ZADD', HEARD, int(NOW_US), agent_id)
end

-- Somebody who joined is not there any more: the server lost the record, and others may be missing too until they say so.
local function forgot()
  redis.call('HSET', JOB, 'forgot_us', int(NOW_US))
end

-- One of them speaks: a verdict that was made without it was made too early.
local function remind()
  forgot()
  redis.call('HDEL', JOB, 'verdict', 'verdict_us')
end

-- Who did not answer is named, and a verdict without its word is `incomplete`.
local function give_up(agent_id)
  redis.call('ZREM', LEASES, agent_id)
  redis.call('ZADD', LOST, int(NOW_US), agent_id)
  event('agent.lost', redis.call('HGET', AGENTS, agent_id) or '{}')
end

local function lose(until_us)
  for _, agent_id in ipairs(redis.call('ZRANGEBYSCORE', LEASES, '-inf', until_us)) do
    give_up(agent_id)
  end
end

-- Nobody needs to know any more that they were here.
local function forget(agent_id)
  for _, key in ipairs({AGENTS, REPORTS}) do
    redis.call('HDEL', key, agent_id)
  end
  redis.call('HDEL', JOB, 'refused:' .. agent_id)
  for _, key in ipairs({LEASES, LOST, LEFT, HEARD}) do
    redis.call('ZREM', key, agent_id)
  end
end

-- The plan that the job's agents asked for when they joined: the longest of each wait.
local function declared_plan(default)
  local waits = redis.call('HMGET', JOB, 'grace_s', 'kill_wait_s', 'grace_max_s')
  if not (waits[1] and waits[2]) then
    return default
  end
  local longest = ''
  if tonumber(waits[3] or 0) > tonumber(waits[1]) then
    longest = ',"wait_max_s":' .. waits[3]
  end
  return '[{"signal":"SIGTERM","wait_s":' .. waits[1] .. longest .. '},{"signal":"SIGKILL","wait_s":' .. waits[2] .. '}]'
end

-- The request, if there is one, as every script returns it: body, plan, requested_us, rev, rq, seal, now_us; and the
-- job's own plan, which who signs has to know.
local function request(word)
  local found = redis.call('HMGET', JOB, 'request', 'plan', 'requested_us', 'rev', 'rq', 'seal')
  return {word, found[1], found[2], found[3], found[4], found[5] or '', found[6] or '', int(NOW_US), declared_plan('')}
end

-- A seal as a member of a JSON object.
local function member(seal)
  return seal ~= '' and ',"seal":"' .. seal .. '"' or ''
end

-- Why a request can't be recorded as it is: the job's agents obey signed ones only; or the plan that its signer took for
-- the job's own is so no longer, or his clock is off: then he has to sign again.
local function unfit(seal, own, plan, default)
  if seal == '' then
    return redis.call('HEXISTS', JOB, 'sealed') == 1 and 'unsigned' or nil
  end
  local age_us = NOW_US - tonumber(string.match(seal, '^v1:%x+:(%d+):') or 0)
  if age_us < -SIGNED_AHEAD_US or age_us > SIGNED_MAX_US or (own == '1' and plan ~= declared_plan(default)) then
    return 'plan'
  end
  return nil
end

-- pcall: a user who may not publish must not leave a script half done; agents find the request with their next beat.
local function broadcast()
  local _, body, plan, requested_us, rev, rq, seal = unpack(request(''))
  redis.pcall('PUBLISH', CHANNEL, '{"v":1,"kind":"request","rev":' .. rev
    .. ',"requested_us":' .. requested_us .. ',"elapsed_us":' .. int(NOW_US - requested_us)
    .. (rq == '1' and ',"rq":1' or '') .. member(seal) .. ',"plan":' .. plan .. ',"request":' .. body .. '}')
end

-- What of the job is on RQ must be swept: there is no verdict before somebody has, or was too long about it.
local function sweep_rq()
  redis.call('HSET', JOB, 'rq', 1, 'rq_due_us', int(NOW_US + RQ_CLAIM_US))
end

-- Who holds a lease now is who must answer: `join` is refused from here on, so the leases can only get fewer.
local function record_request(body, plan, seal, rq)
  redis.call('HSETNX', JOB, 'created_us', int(NOW_US))
  redis.call('HSET', JOB, 'request', body, 'plan', plan, 'requested_us', int(NOW_US), 'rev', 1, 'seal', seal)
  if rq or redis.call('EXISTS', RQ) == 1 then
    sweep_rq()
  end
  event('shutdown.requested', body)
  broadcast()
end

-- Once nobody is left to answer, the record says how it ended. A late answer can turn `incomplete` into more.
local function settle()
  if not fenced() or redis.call('ZCARD', LEASES) > 0 then
    return
  end
  if redis.call('HEXISTS', JOB, 'rq_due_us') == 1 then
    return
  end
  local job = redis.call('HMGET', JOB, 'killed', 'survived', 'verdict', 'rq_lost', 'rq_unproved_count', 'forgot_us', 'memory')
  -- The server lost the record: who lives has said so again within this time, and is waited for.
  if job[6] and NOW_US < job[6] + PATIENCE_US then
    return
  end
  local killed, survived = tonumber(job[1] or 0), tonumber(job[2] or 0)
  local verdict = 'clean'
  if survived > 0 or redis.call('ZCARD', LOST) > 0 or job[4] or tonumber(job[5] or 0) > 0
    or job[7] == 'part' then
    verdict = 'incomplete'
  elseif killed > 0 then
    verdict = 'forced'
  end
  if verdict ~= job[3] then
    redis.call('HSET', JOB, 'verdict', verdict, 'verdict_us', int(NOW_US))
    event('job.verdict', '{"verdict":"' .. verdict .. '"}')
  end
end
