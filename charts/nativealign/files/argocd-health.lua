-- Health of AlignJob, PretrainJob and EvalJob for Argo CD. Put it into argocd-cm as
-- resource.customizations.health.nativealign.dev_AlignJob, …_PretrainJob and …_EvalJob.
-- A running job is Progressing, so that a sync wave waits for its end, and a gate that did not pass is Degraded.

local health = {status = "Progressing", message = "Waiting for the operator"}

if obj.status == nil or obj.status.observedGeneration == nil or obj.status.observedGeneration < obj.metadata.generation then
  return health
end

local conditions = {}
for _, condition in ipairs(obj.status.conditions or {}) do
  conditions[condition.type] = condition
end

local function holds(name)
  return conditions[name] ~= nil and conditions[name].status == "True"
end

local function found(status, name)
  local condition = conditions[name] or {}
  return {status = status, message = condition.message or condition.reason or ""}
end

if holds("Suspended") then
  return found("Suspended", "Suspended")
end
if holds("Complete") then
  return found("Healthy", "Complete")
end
if holds("Stalled") then
  return found("Degraded", "Stalled")
end
return found("Progressing", "Ready")
