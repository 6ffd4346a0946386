-- May anything of the job start? Changes nothing, and creates nothing for a job that nobody knows.
-- Returns {'none'}, or 'exists' with the request that forbids it.

if fenced() then
  return request('exists')
end
return {'none'}
