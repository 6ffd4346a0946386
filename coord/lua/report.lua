-- An agent's word on its trees. The last one that had to answer makes the verdict.
-- ARGV: agent id, AgentReport JSON, event kind ('agent.stopped' is the agent's last word), killed, survived,
--       microseconds since the first signal ('' = none), since all were gone ('' = not yet), seal;
--       then event kind, microseconds since it, event detail JSON, of each event that was not told yet.
-- Ages and not times: hosts' clocks differ. The way to Redis counts in, so that the figures never flatter.
-- Returns {'ok'}, or {'missing'} when the record has lost the agent: it has to say that it is there, and this again.

wholly()
local agent_id, report, kind, killed, survived, signal_age_us, gone_age_us, seal = unpack(ARGV, 3)
local function tell()
  for i = 11, #ARGV, 3 do
    event(ARGV[i], ARGV[i + 2], NOW_US - ARGV[i + 1])
  end
end

local requested_us = redis.call('HGET', JOB, 'requested_us')

local function since_request_ms(age_us)
  if age_us == '' or not requested_us then
    return 'null'
  end
  return string.format('%.3f', math.max(0, NOW_US - age_us - requested_us) / 1000)
end

local known = redis.call('HEXISTS', AGENTS, agent_id) == 1
hear(agent_id)
if not known and fenced() and #cjson.decode(report).processes > 0 then -- who never started anything is not missed
  remind()
end
local made = redis.call('HSET', REPORTS, agent_id, '{"first_signal_ms":' .. since_request_ms(signal_age_us)
  .. ',"all_gone_ms":' .. since_request_ms(gone_age_us) .. member(seal) .. ',"report":' .. report .. '}') == 1

if kind == 'agent.stopped' then
  -- A report that comes twice, because its first answer was lost, counts once.
  local awaited = redis.call('ZREM', LEASES, agent_id) + redis.call('ZREM', LOST, agent_id)
  if awaited > 0 then
    redis.call('ZADD', LEFT, int(NOW_US), agent_id)
    made = made or redis.call('ZCARD', LEFT) == 1
    if survived ~= '0' then
      redis.call('HINCRBY', JOB, 'survived', survived)
    end
    if requested_us and killed ~= '0' then
      redis.call('HINCRBY', JOB, 'killed', killed)
    end
    tell()
  end
  settle()
else
  tell()
end
renew(made)
return {known and 'ok' or 'missing'}
