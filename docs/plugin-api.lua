---@meta postroad
-- The API of Postroad's plugins, for editors. Made by `postroad plugin stubs`; changes here are lost.

---An answer of a hook: made by functions of `postroad`, and returned.
---@class postroad.Answer

---@class postroad.Counter
local counter = {}

---Adds to the counter.
---@param n? integer 1 without.
function counter:add(n) end

---@class postroad.Gauge
local gauge = {}

---Sets the gauge.
---@param value number
function gauge:set(value) end

---@class postroad.Time
---@field year integer
---@field month integer
---@field day integer
---@field hour integer
---@field minute integer
---@field second integer
---@field millisecond integer
---@field weekday integer 1 is Monday.

---A message, during the call of a hook.
---@class postroad.Message
---@field topic string The topic name.
---@field payload string The application's bytes.
---@field qos integer 0, 1 or 2. It can be made lower, not higher.
---@field retain boolean Whether the message is to be retained.
---@field priority "low"|"normal"|"high" Which of the messages that wait go first.
---@field ttl? number Seconds for which the message is worth delivering; `nil`: without limit.
---@field deliver_at? integer Not before that: milliseconds since 1970.
---@field collapse_key? string What has this key and has not been sent is replaced by the message.
---@field retry_attempts_max? integer How often it is sent to one recipient at most.
---@field retry_age_max? number For how many seconds it is sent again; 0: without limit.
---@field content_type? string What the payload is, in the application's words.
---@field properties table<string, string> The first value of each user property. A new table each time: see `property` and `set_property`.
---@field client? string Who publishes, connects or subscribes; of a letter: who did not get it. In `on_deliver`: nil.
---@field user? string The user that the client proved to be.
---@field groups string[] The groups of the client. A new table each time.
---@field is_application boolean An application published it, by the API.
---@field id? string The id of the message, before it has one `nil`.
local message = {}

---One user property.
---@param name string The name of a user property.
---@return string? value Its first value.
function message:property(name) end

---Sets one user property. Others of the name go.
---@param name string The name.
---@param value string? The value; `nil`: none of that name any more.
function message:set_property(name, value) end

---Adds a message, and keeps this one. What the part does not say it has from this one as the hook leaves it.
---@param part postroad.Part A table with `topic` and other fields of a message.
function message:also(part) end

---A dead letter, during the call of a hook.
---@class postroad.Letter
---@field topic string The topic name.
---@field payload string The application's bytes.
---@field qos integer 0, 1 or 2. It can be made lower, not higher.
---@field retain boolean Whether the message is to be retained.
---@field priority "low"|"normal"|"high" Which of the messages that wait go first.
---@field ttl? number Seconds for which the message is worth delivering; `nil`: without limit.
---@field deliver_at? integer Not before that: milliseconds since 1970.
---@field collapse_key? string What has this key and has not been sent is replaced by the message.
---@field retry_attempts_max? integer How often it is sent to one recipient at most.
---@field retry_age_max? number For how many seconds it is sent again; 0: without limit.
---@field content_type? string What the payload is, in the application's words.
---@field properties table<string, string> The first value of each user property. A new table each time: see `property` and `set_property`.
---@field client? string Who publishes, connects or subscribes; of a letter: who did not get it. In `on_deliver`: nil.
---@field user? string The user that the client proved to be.
---@field groups string[] The groups of the client. A new table each time.
---@field id? string The id of the message, before it has one `nil`.
---@field reason string How the delivery ended, such as `"attempts"`.
---@field attempts integer How often it was sent.
---@field died_at integer When the delivery ended: milliseconds since 1970.
---@field requeues integer How many requeues the message has behind it.
---@field reason_code integer The receiver's reason code, or 0.
---@field error? string What its receiver had against it, in words.
---@field is_push boolean It had been pushed to the client, and waited for its registration.
local letter = {}

---One user property.
---@param name string The name of a user property.
---@return string? value Its first value.
function letter:property(name) end

---Who wants to connect.
---@class postroad.Client
---@field client? string Who publishes, connects or subscribes; of a letter: who did not get it. In `on_deliver`: nil.
---@field user? string The user that the client proved to be.
---@field groups string[] The groups of the client. A new table each time.
---@field clean_start boolean The client wants its old session ended.
---@field expiry integer Seconds for which the session outlives the connection.
---@field will_topic? string The topic of its will, if it has one.

---Whose connection is over.
---@class postroad.Gone
---@field client? string Who publishes, connects or subscribes; of a letter: who did not get it. In `on_deliver`: nil.
---@field user? string The user that the client proved to be.
---@field groups string[] The groups of the client. A new table each time.
---@field is_application boolean An application published it, by the API.
---@field cause "normal"|"with_will"|"lost"|"shutdown" How the connection ended.

---Who wants to subscribe to what.
---@class postroad.Subscription
---@field qos integer 0, 1 or 2. It can be made lower, not higher.
---@field client? string Who publishes, connects or subscribes; of a letter: who did not get it. In `on_deliver`: nil.
---@field user? string The user that the client proved to be.
---@field groups string[] The groups of the client. A new table each time.
---@field is_application boolean An application published it, by the API.
---@field filter string The topic filter that the client subscribes to.

---A table that stands for a message.
---@class postroad.Part
---@field topic string The topic name.
---@field payload? string The application's bytes.
---@field qos? integer 0, 1 or 2. It can be made lower, not higher.
---@field retain? boolean Whether the message is to be retained.
---@field priority? "low"|"normal"|"high" Which of the messages that wait go first.
---@field ttl? number Seconds for which the message is worth delivering; `nil`: without limit.
---@field deliver_at? integer Not before that: milliseconds since 1970.
---@field collapse_key? string What has this key and has not been sent is replaced by the message.
---@field retry_attempts_max? integer How often it is sent to one recipient at most.
---@field retry_age_max? number For how many seconds it is sent again; 0: without limit.
---@field content_type? string What the payload is, in the application's words.
---@field properties? table<string, string> The first value of each user property. A new table each time: see `property` and `set_property`.

---Limits of a plugin: they can only be lower than the server's.
---@class postroad.Limits
---@field instructions? integer Instructions of one call.
---@field load_instructions? integer Instructions of loading, `on_load`, `on_save` and each self-test.
---@field millis? integer Milliseconds of one call.
---@field load_millis? integer Milliseconds of loading, `on_load`, `on_save` and each self-test.
---@field memory_bytes? integer Bytes of memory that the plugin holds on a shard.
---@field allocated_bytes? integer Bytes that one call asks for, whether it gives them back or not.
---@field block_bytes? integer Bytes of one string, or one part of a table.

---@class postroad.MessageHookTable
---@field run (fun(message: postroad.Message): postroad.Answer?, postroad.Answer?) The hook.
---@field filters? string[] Topic filters, matched before Lua is entered: only what one of them matches is shown to the hook. Without: each topic that does not begin with `$`.
---@field on_error? ("open"|"closed") What holds if the hook fails: `open`, as if it was not there, or `closed`, the safe refusal. `open` without, but for `on_connect` and `on_subscribe`.

---@alias postroad.MessageHook (fun(message: postroad.Message): postroad.Answer?, postroad.Answer?)|postroad.MessageHookTable

---@class postroad.LetterHookTable
---@field run (fun(letter: postroad.Letter): postroad.Answer?, postroad.Answer?) The hook.
---@field filters? string[] Topic filters, matched before Lua is entered: only what one of them matches is shown to the hook. Without: each topic that does not begin with `$`.
---@field on_error? ("open"|"closed") What holds if the hook fails: `open`, as if it was not there, or `closed`, the safe refusal. `open` without, but for `on_connect` and `on_subscribe`.

---@alias postroad.LetterHook (fun(letter: postroad.Letter): postroad.Answer?, postroad.Answer?)|postroad.LetterHookTable

---@class postroad.ClientHookTable
---@field run (fun(client: postroad.Client): postroad.Answer?, postroad.Answer?) The hook.
---@field filters? string[] Topic filters, matched before Lua is entered: only what one of them matches is shown to the hook. Without: each topic that does not begin with `$`.
---@field on_error? ("open"|"closed") What holds if the hook fails: `open`, as if it was not there, or `closed`, the safe refusal. `open` without, but for `on_connect` and `on_subscribe`.

---@alias postroad.ClientHook (fun(client: postroad.Client): postroad.Answer?, postroad.Answer?)|postroad.ClientHookTable

---@class postroad.GoneHookTable
---@field run (fun(gone: postroad.Gone): postroad.Answer?, postroad.Answer?) The hook.
---@field filters? string[] Topic filters, matched before Lua is entered: only what one of them matches is shown to the hook. Without: each topic that does not begin with `$`.
---@field on_error? ("open"|"closed") What holds if the hook fails: `open`, as if it was not there, or `closed`, the safe refusal. `open` without, but for `on_connect` and `on_subscribe`.

---@alias postroad.GoneHook (fun(gone: postroad.Gone): postroad.Answer?, postroad.Answer?)|postroad.GoneHookTable

---@class postroad.SubscriptionHookTable
---@field run (fun(subscription: postroad.Subscription): postroad.Answer?, postroad.Answer?) The hook.
---@field filters? string[] Topic filters, matched before Lua is entered: only what one of them matches is shown to the hook. Without: each topic that does not begin with `$`.
---@field on_error? ("open"|"closed") What holds if the hook fails: `open`, as if it was not there, or `closed`, the safe refusal. `open` without, but for `on_connect` and `on_subscribe`.

---@alias postroad.SubscriptionHook (fun(subscription: postroad.Subscription): postroad.Answer?, postroad.Answer?)|postroad.SubscriptionHookTable

---@class postroad.DeliverHookTable
---@field run (fun(message: postroad.Message, clients: string[]): table<integer, boolean>|nil) The hook.
---@field filters? string[] Topic filters, matched before Lua is entered: only what one of them matches is shown to the hook. Without: each topic that does not begin with `$`.
---@field on_error? ("open"|"closed") What holds if the hook fails: `open`, as if it was not there, or `closed`, the safe refusal. `open` without, but for `on_connect` and `on_subscribe`.

---@alias postroad.DeliverHook (fun(message: postroad.Message, clients: string[]): table<integer, boolean>|nil)|postroad.DeliverHookTable

---The table that a plugin's file returns.
---@class postroad.Plugin
---@field description? string What the plugin is for, in a line: shown by `postroad plugin list`.
---@field priority? integer 0 to 1000, 500 without: plugins with smaller ones are asked first, equal ones by their names.
---@field limits? postroad.Limits Limits below those of the server.
---@field on_connect? postroad.ClientHook A client wants to connect. Returns nothing, `postroad.deny(…)` or `postroad.groups(…)`. If it fails, the client is refused.
---@field on_disconnect? postroad.GoneHook A connection is over. Returns nothing, or `postroad.publish(…)`.
---@field on_subscribe? postroad.SubscriptionHook A client wants to subscribe. Returns nothing or `postroad.deny(…)`, or sets `qos`. If it fails, the subscription is refused.
---@field on_inbound? postroad.MessageHook A client publishes a message (not an application, by the API). All `on_inbound` are asked before all `route`.
---@field route? postroad.MessageHook A message is published. What is set in it goes on; an answer may drop, refuse, park or split it.
---@field on_deliver? postroad.DeliverHook A message is about to be given to clients of a shard: a table `{ [place] = false }` leaves those out. Once for each message and shard.
---@field on_dead_letter? postroad.LetterHook A delivery has become a dead letter. Returns nothing (it stays), `postroad.requeue()`, `postroad.drop(…)` or `postroad.park(…)`.
---@field on_save? (fun(): any) Gives plain data to the next version of the plugin.
---@field on_load? (fun(previous: any, from_version: string?)) Takes what `on_save` of the version before gave, and that version's hash; at a first start `nil`. The store can't be written meanwhile.
---@field codec? table A frame format of the plugin's own, for listeners that name it.
---@field test? table<string, fun()> Self-tests: run before a reload replaces anything. One fails if it raises an error.

---The API.
postroad = {}

postroad.log = {}

postroad.store = {}

postroad.json = {}

postroad.msgpack = {}

postroad.hex = {}

postroad.base64 = {}

postroad.time = {}

---The message goes to nobody, and its publisher hears that it was taken in; a dead letter is over.
---@param reason? string Why, for logs and metrics.
---@return postroad.Answer answer To be returned by the hook.
function postroad.drop(reason) end

---The publisher hears that its message was refused.
---@param reason integer|string A reason code from 0x80 on, or its name, such as `"quota_exceeded"`.
---@param text? string For the log.
---@return postroad.Answer answer To be returned by the hook.
function postroad.refuse(reason, text) end

---The message becomes a dead letter that a human looks at; a letter stays one.
---@param note string For the human.
---@return postroad.Answer answer To be returned by the hook.
function postroad.park(note) end

---These messages in place of the one that came. What a part does not say it has from the message.
---@param messages postroad.Part[] Tables with `topic`, `payload` and other fields of a message.
---@return postroad.Answer answer To be returned by the hook.
function postroad.split(messages) end

---What was set holds, and later plugins are not asked.
---@return postroad.Answer answer To be returned by the hook.
function postroad.stop() end

---A client may not connect, or subscribe.
---@param reason? integer|string A reason code from 0x80 on, or its name; without one: not authorized.
---@param text? string For the log.
---@return postroad.Answer answer To be returned by the hook.
function postroad.deny(reason, text) end

---The client that connects belongs to these groups, too.
---@param names string[] Names of groups.
---@return postroad.Answer answer To be returned by the hook.
function postroad.groups(names) end

---The dead letter is sent to its client again, with what was set in it; with another topic: it is published there.
---@return postroad.Answer answer To be returned by the hook.
function postroad.requeue() end

---These messages are published besides. No plugin sees them.
---@param messages postroad.Part[] Tables with `topic`, `payload` and other fields of a message.
---@return postroad.Answer answer To be returned by the hook.
function postroad.publish(messages) end

---As subscriptions match: `+`, `#`, and `$` at the start.
---@param filter string A topic filter.
---@param topic string A topic name.
---@return boolean matches Whether the filter matches the topic.
function postroad.match(filter, topic) end

---The time of the call. It stands still during one.
---@return integer ms Milliseconds since 1970, UTC.
function postroad.now() end

---Writes a line to the server's log.
---@param ... any What to write: texts, numbers, booleans; joined by spaces.
function postroad.log.debug(...) end

---Writes a line to the server's log. So many a second are written; what is more is counted.
---@param ... any What to write: texts, numbers, booleans; joined by spaces.
function postroad.log.info(...) end

---Writes a warning to the server's log.
---@param ... any What to write: texts, numbers, booleans; joined by spaces.
function postroad.log.warn(...) end

---Writes an error to the server's log.
---@param ... any What to write: texts, numbers, booleans; joined by spaces.
function postroad.log.error(...) end

---A number that only grows, shown among the server's metrics.
---@param name string `[a-z][a-z0-9_]*`, at most 64 bytes.
---@return postroad.Counter counter With `counter:add(n)`.
function postroad.counter(name) end

---A number that goes up and down, shown among the server's metrics.
---@param name string As of a counter.
---@return postroad.Gauge gauge With `gauge:set(x)`.
function postroad.gauge(name) end

---What the plugin has stored on this shard. It outlives reloads, and not the process.
---@param key string The key.
---@return string|number|boolean|nil value What is stored, and not over.
function postroad.store.get(key) end

---Stores a value.
---@param key string The key.
---@param value string|number|boolean The value.
---@param ttl? number Seconds for which it is kept; for ever without.
---@return boolean is_stored `false`: there is no room.
function postroad.store.set(key, value, ttl) end

---Adds to a whole number, from 0 on.
---@param key string The key.
---@param by? integer 1 without.
---@param ttl? number Seconds for which a new one is kept; one that is there keeps its time.
---@return integer? value The sum; `nil`: there is no room.
function postroad.store.incr(key, by, ttl) end

---Deletes a value.
---@param key string The key.
---@return boolean was_there Whether there was one.
function postroad.store.delete(key) end

---The null of JSON and MessagePack: a table can't hold `nil`.
---@type userdata
postroad.null = nil

---Marks a table as an array: without this, an empty one is written as an object.
---@param table? table A table; a new one without.
---@return table array The same.
function postroad.array(table) end

---Writes JSON. Keys are sorted, so equal values give equal texts.
---@param value any Tables, texts in UTF-8, numbers, booleans, `postroad.null`.
---@return string? bytes The bytes; `nil` if it can't be written.
---@return string? error Then: why not.
function postroad.json.encode(value) end

---Reads JSON. Whole numbers of 64 bits are exact; arrays are marked as such.
---@param text string The text.
---@return any value The value; `nil` if there is none.
---@return string? error Then: what is wrong, and where.
function postroad.json.decode(text) end

---Writes MessagePack, each number as the shortest that is exact. Keys are sorted.
---@param value any As for JSON; texts may be any bytes.
---@return string? bytes The bytes; `nil` if it can't be written.
---@return string? error Then: why not.
function postroad.msgpack.encode(value) end

---Reads MessagePack.
---@param bytes string Any bytes.
---@return any value The value; `nil` if there is none.
---@return string? error Then: what is wrong, and where.
function postroad.msgpack.decode(bytes) end

---CRC-32 as of Ethernet, gzip and PNG.
---@param bytes string Any bytes.
---@return integer hash The hash.
function postroad.crc32(bytes) end

---SHA-256.
---@param bytes string Any bytes.
---@return string digest 32 bytes; see `postroad.hex.encode`.
function postroad.sha256(bytes) end

---FNV-1a of 64 bits, as a signed integer.
---@param bytes string Any bytes.
---@return integer hash The hash.
function postroad.fnv1a(bytes) end

---XXH64, as a signed integer.
---@param bytes string Any bytes.
---@param seed? integer 0 without.
---@return integer hash The hash.
function postroad.xxh64(bytes, seed) end

---Two small digits for each byte.
---@param bytes string Any bytes.
---@return string text The text.
function postroad.hex.encode(bytes) end

---Bytes from digits of either case.
---@param text string The text.
---@return any value The value; `nil` if there is none.
---@return string? error Then: what is wrong, and where.
function postroad.hex.decode(text) end

---Base64 of RFC 4648 with padding.
---@param bytes string Any bytes.
---@return string text The text.
function postroad.base64.encode(bytes) end

---Bytes from base64, with or without padding.
---@param text string The text.
---@return any value The value; `nil` if there is none.
---@return string? error Then: what is wrong, and where.
function postroad.base64.decode(text) end

---The parts of a time.
---@param ms integer Milliseconds since 1970.
---@param offset? integer Minutes east of Greenwich.
---@return postroad.Time fields `year`, `month`, `day`, `hour`, `minute`, `second`, `millisecond`, `weekday` (1 is Monday).
function postroad.time.utc(ms, offset) end

---A time as people and JSON write it.
---@param ms integer Milliseconds since 1970.
---@return string text Such as `2026-11-26T14:05:00Z`.
function postroad.time.text(ms) end

---What a case of NAME_test.lua is given. See docs/plugin-tools.md.
---@class postroad.Test
---@field publish fun(message: table): table
---@field deliver fun(message: table): string[]
---@field dead_letter fun(letter: table): table
---@field connect fun(client: table): table
---@field disconnect fun(client: table): table
---@field subscribe fun(subscription: table): table
---@field now fun(): integer
---@field advance fun(ms: integer): integer
---@field counter fun(name: string): integer
---@field gauge fun(name: string): number?
---@field failures fun(): table[]
---@field reload fun()
---@field decode fun(bytes: string, client?: string): table
---@field encode fun(frame: table): string
---@field every_split fun(bytes: string, expected?: table[], client?: string): table[]
---@field equal fun(got: any, expected: any)
---@field ok fun(value: any, what?: string): any
---@field contains fun(whole: any, part: any)
---@field matches fun(text: string, pattern: string)
---@field raises fun(call: function, pattern?: string): string
---@field fail fun(text?: string)
---@field print fun(...)
---@field show fun(value: any): string
