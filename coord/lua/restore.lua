-- The server lost the job's record, or the end of it, after the request was acknowledged: who knows of it writes it again.
-- An agent knows the request and itself. A follower knows all that was there when it last looked; a member that never
-- answers is lost then, and nobody is forgotten. What is there already stays, so that any number may write.
-- ARGV: body JSON, plan JSON, rev, microseconds since the request, '1' when it has RQ jobs to be swept, JSON object of
--       other fields of the job, '1' when all who had to answer are named, seal, and when it was made if it has one;
--       then of each agent: id, AgentInfo JSON,
--       'awaited', 'left' or 'lost', microseconds since it was heard, and since it left, its lease_us, its report as
--       it was kept ('' = none), killed, survived.
-- Returns 'restored' or 'exists' with the request.

wholly()
local body, plan, rev, elapsed_us, rq, fields, whole, seal, sealed_us = unpack(ARGV, 3, 11)
local FIRST, EACH = 12, 9
local requested_us = seal ~= '' and sealed_us or int(NOW_US - elapsed_us)

-- Who left while the request was not known, had its word kept, but who was killed of it was not counted.
local function count_killed()
  for _, agent_id in ipairs(redis.call('ZRANGEBYSCORE', LEFT, int(NOW_US - elapsed_us), '+inf')) do
    local kept = redis.call('HGET', REPORTS, agent_id)
    for _, process in ipairs(kept and cjson.decode(kept).report.processes or {}) do
      redis.call('HINCRBY', JOB, 'killed', process.outcome == 'killed' and 1 or 0)
    end
  end
end

local function restore_request()
  redis.call('HSET', JOB, 'request', body, 'plan', plan, 'requested_us', requested_us, 'rev', rev, 'seal', seal)
  count_killed()
  if rq == '1' then
    sweep_rq()
  end
  -- What the agents that come first don't know is unknown, until somebody comes who knows.
  redis.call('HSET', JOB, 'memory', 'part', 'forgot_us', int(NOW_US))
  event('record.restored', body)
  broadcast()
end

local function restore_left(agent_id, left_age_us, report, killed, survived)
  redis.call('ZREM', LEASES, agent_id)
  redis.call('ZREM', LOST, agent_id)
  redis.call('ZADD', LEFT, int(NOW_US - left_age_us), agent_id)
  redis.call('HSET', REPORTS, agent_id, report)
  redis.call('HINCRBY', JOB, 'killed', killed)
  redis.call('HINCRBY', JOB, 'survived', survived)
end

local function restore_agent(i)
  local agent_id, info, state, heard_age_us, left_age_us, lease_us, report, killed, survived = unpack(ARGV, i, i + EACH - 1)
  local heard_us = redis.call('ZSCORE', HEARD, agent_id)
  redis.call('ZADD', HEARD, 'NX', int(NOW_US - heard_age_us), agent_id)
  redis.call('HSETNX', AGENTS, agent_id, info)
  if report ~= '' then
    redis.call('HSETNX', REPORTS, agent_id, report)
  end
  if redis.call('ZSCORE', LEFT, agent_id) then
    return
  end
  if state == 'left' then
    if not heard_us or heard_us + 0 <= NOW_US - heard_age_us then -- its own word since then counts more
      restore_left(agent_id, left_age_us, report, killed, survived)
    end
  elseif not redis.call('ZSCORE', LEASES, agent_id) and not redis.call('ZSCORE', LOST, agent_id) then
    if state == 'lost' then
      redis.call('ZADD', LOST, int(NOW_US), agent_id)
    else
      redis.call('ZADD', LEASES, int(NOW_US + lease_us), agent_id)
      redis.call('HDEL', JOB, 'verdict', 'verdict_us')
    end
  end
end

for name, value in pairs(cjson.decode(fields)) do
  redis.call('HSETNX', JOB, name, value)
end
redis.call('HSETNX', JOB, 'created_us', int(NOW_US - elapsed_us))
local lost = not fenced()
if lost then
  restore_request()
elseif cjson.decode(redis.call('HGET', JOB, 'request')).id == cjson.decode(body).id
  and tonumber(rev) > tonumber(redis.call('HGET', JOB, 'rev')) then
  redis.call('HSET', JOB, 'plan', plan, 'rev', rev, 'seal', seal)
  broadcast()
end
if redis.call('HEXISTS', JOB, 'first_failure') == 1 then -- it was recorded together with the request
  redis.call('HSETNX', JOB, 'first_failure_us', int(NOW_US - elapsed_us))
end
if whole == '1' then
  redis.call('HSET', JOB, 'memory', 'whole')
  redis.call('HDEL', JOB, 'forgot_us')
end
for i = FIRST, #ARGV, EACH do
  restore_agent(i)
end
settle()
touch()
return request(lost and 'restored' or 'exists')
