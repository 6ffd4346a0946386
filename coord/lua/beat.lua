-- An agent is alive. It learns whether its job has a request, so that even a silently dead subscription costs one beat;
-- and whether the lease of another agent has ended, so that any survivor finds a lost host.
-- ARGV: agent id, lease_us, what it refused by kind as JSON ('' = nothing).
-- Returns 'exists' with the request; 'missing' with it when the record has lost the agent, which has to enrol; 'back'
-- when the agent was given up, and 'unknown' when the record has lost it: it has to join again; 'lost', with AgentInfo
-- JSON and microseconds since it was heard at the end; or 'none'.

local agent_id, lease_us, refused = unpack(ARGV, 3)

local known = redis.call('ZSCORE', LEASES, agent_id)
local given_up = redis.call('ZSCORE', LOST, agent_id)
if known or given_up then
  hear(agent_id)
end
redis.call('ZADD', LEASES, 'XX', int(NOW_US + lease_us), agent_id)
if refused ~= '' and redis.call('HEXISTS', AGENTS, agent_id) == 1 then
  redis.call('HSET', JOB, 'refused:' .. agent_id, refused)
end
renew(not known)
if fenced() then
  if known or given_up or redis.call('ZSCORE', LEFT, agent_id) then
    return request('exists')
  end
  forgot()
  return request('missing')
end
if not known then
  return request(given_up and 'back' or 'unknown')
end
local lost = redis.call('ZRANGEBYSCORE', LEASES, '-inf', int(NOW_US), 'LIMIT', 0, 1)[1]
local info = lost and lost ~= agent_id and redis.call('HGET', AGENTS, lost)
if info and not patient() then
  local answer = request('lost')
  answer[#answer + 1] = info
  answer[#answer + 1] = int(NOW_US - (redis.call('ZSCORE', HEARD, lost) or NOW_US))
  return answer
end
return request('none')
