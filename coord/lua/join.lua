-- An agent joins the job, or is refused because the job is fenced.
-- ARGV: agent id, AgentInfo JSON, grace_s, kill_wait_s, grace_max_s, lease_us, '1' when it had
--       joined before, and the record has lost it; names of its keys ('' = none).
-- Returns 'joined', or 'fenced' with the request that forbids it; 'unsigned' when the job's agents have keys.

wholly()
local agent_id, info, grace_s, kill_wait_s, grace_max_s, lease_us, again, keys = unpack(ARGV, 3)
local LEFT_MAX = 1000

if fenced() then
  -- It may have joined before, in a try whose answer was lost on the way: it started nothing, so nobody waits for it.
  if redis.call('ZSCORE', LEASES, agent_id) then
    forget(agent_id)
  end
  settle()
  return request('fenced')
end

if keys == '' and redis.call('HEXISTS', JOB, 'sealed') == 1 then
  return request('unsigned')
elseif keys ~= '' then
  redis.call('HSET', JOB, 'sealed', keys)
end

local function raise(field, seconds)
  if tonumber(seconds) > tonumber(redis.call('HGET', JOB, field) or -1) then
    redis.call('HSET', JOB, field, seconds)
  end
end

redis.call('HSETNX', JOB, 'created_us', int(NOW_US))
raise('grace_s', grace_s)
raise('kill_wait_s', kill_wait_s)
raise('grace_max_s', grace_max_s)
hear(agent_id)
redis.call('HSET', AGENTS, agent_id, info)
redis.call('HDEL', REPORTS, agent_id) -- its last word, if it was here before
redis.call('ZADD', LEASES, int(NOW_US + lease_us), agent_id)
if again == '1' then
  forgot()
end
redis.call('ZREM', LEFT, agent_id)
if redis.call('ZREM', LOST, agent_id) == 1 then
  event('agent.back', info)
else
  event('agent.joined', info)
end

local surplus = redis.call('ZCARD', LEFT) - LEFT_MAX
if surplus > 0 then
  for _, each in ipairs(redis.call('ZRANGE', LEFT, 0, surplus - 1)) do
    forget(each)
  end
end
-- A job that goes on without those it lost keeps them as long as it would be kept itself.
for _, each in ipairs(redis.call('ZRANGEBYSCORE', LOST, '-inf', int(NOW_US - RETAIN_S * 1000000))) do
  forget(each)
end
touch()
return request('joined')
