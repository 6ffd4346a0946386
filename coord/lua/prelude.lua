-- Stands before every script: the job's keys, the clock, and what more than one script does.
-- Times are Redis time in microseconds. They are formatted with %.0f: Lua's own conversion keeps 14 digits only.

local JOB, AGENTS, REPORTS, LEASES, LOST, LEFT, EVENTS = unpack(KEYS)
local RETAIN_S, CHANNEL = ARGV[1], ARGV[2]
local EVENTS_MAX = 10000

local function int(number)
  return string.format('%.0f', number)
end

local time = redis.call('TIME')
local NOW_US = time[1] * 1000000 + time[2]

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

local function fenced()
  return redis.call('HEXISTS', JOB, 'request') == 1
end

-- The request as every script returns it: body, plan, requested_us, rev, now_us.
local function request(word)
  local found = redis.call('HMGET', JOB, 'request', 'plan', 'requested_us', 'rev')
  return {word, found[1], found[2], found[3], found[4], int(NOW_US)}
end

-- pcall: a user who may not publish must not leave a script half done; agents find the request with their next beat.
local function broadcast()
  local _, body, plan, requested_us, rev = unpack(request(''))
  redis.pcall('PUBLISH', CHANNEL, '{"v":1,"kind":"request","rev":' .. rev
    .. ',"requested_us":' .. requested_us .. ',"elapsed_us":' .. int(NOW_US - requested_us)
    .. ',"plan":' .. plan .. ',"request":' .. body .. '}')
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

-- Who holds a lease now is who must answer: `join` is refused from here on, so the leases can only get fewer.
local function record_request(body, plan)
  redis.call('HSETNX', JOB, 'created_us', int(NOW_US))
  redis.call('HSET', JOB, 'request', body, 'plan', plan, 'requested_us', int(NOW_US), 'rev', 1)
  event('shutdown.requested', body)
  broadcast()
end

-- Once nobody is left to answer, the record says how it ended. A late answer can turn `incomplete` into more.
local function settle()
  if not fenced() or redis.call('ZCARD', LEASES) > 0 then
    return
  end
  local job = redis.call('HMGET', JOB, 'killed', 'survived', 'verdict')
  local killed, survived = tonumber(job[1] or 0), tonumber(job[2] or 0)
  local verdict = 'clean'
  if survived > 0 or redis.call('SCARD', LOST) > 0 then
    verdict = 'incomplete'
  elseif killed > 0 then
    verdict = 'forced'
  end
  if verdict ~= job[3] then
    redis.call('HSET', JOB, 'verdict', verdict, 'verdict_us', int(NOW_US))
    event('job.verdict', '{"verdict":"' .. verdict .. '"}')
  end
end
