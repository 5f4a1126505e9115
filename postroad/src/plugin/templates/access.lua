-- NAME: lets only users in, puts those of a staff name into a group, and keeps secrets from the others.
--
-- To change: STAFF is how names of the staff begin, SECRETS what only they may subscribe to.

local STAFF = "staff-"
local SECRETS = "secret/#"

local function is_staff(user)
  return user ~= nil and user:sub(1, #STAFF) == STAFF
end

return {
  description = "who may connect and subscribe",
  ---@param client postroad.Client
  on_connect = function(client)
    if client.user == nil then
      return postroad.deny("bad_user_name_or_password", "a user is needed")
    end
    if is_staff(client.user) then
      return postroad.groups { "staff" }
    end
  end,
  ---@param subscription postroad.Subscription
  on_subscribe = function(subscription)
    if postroad.match(SECRETS, subscription.filter) and not is_staff(subscription.user) then
      return postroad.deny("not_authorized")
    end
  end,
}
