// MQTT.js against a broker: node mqttjs_suite.js HOST PORT. Prints each case, and "all passed" at the end.
'use strict'

const assert = require('node:assert')
const mqtt = require('mqtt')

const url = `mqtt://${process.argv[2]}:${process.argv[3]}`
const PATIENCE_MS = 20000

const within = (promise, what) => {
  let timer
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited in vain for ${what}`)), PATIENCE_MS)
  })
  return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}

const connect = async (clientId, options = {}) => {
  const client = await within(
    mqtt.connectAsync(url, { clientId, protocolVersion: 5, reconnectPeriod: 0, ...options }), 'CONNACK')
  client.received = []
  client.waiting = []
  client.on('message', (topic, payload, packet) => {
    client.received.push({ topic, payload: payload.toString(), packet })
    client.waiting.splice(0).forEach((wake) => wake())
  })
  return client
}

const take = async (client, count) => {
  while (client.received.length < count) {
    await within(new Promise((resolve) => client.waiting.push(resolve)), `${count} messages`)
  }
  return client.received.splice(0, count)
}

const texts = (messages) => messages.map((message) => message.payload)
const numbers = (count) => Array.from({ length: count }, (_, number) => String(number))

const everyQos = async (protocolVersion) => {
  const receiver = await connect('js-receiver', { protocolVersion })
  const sender = await connect('js-sender', { protocolVersion })
  const [granted] = await receiver.subscribeAsync('js/+/x', { qos: 2 })
  assert.strictEqual(granted.qos, 2)
  for (const qos of [0, 1, 2]) {
    await Promise.all(numbers(50).map((text) => sender.publishAsync(`js/${qos}/x`, text, { qos })))
    const messages = await take(receiver, 50)
    assert.deepStrictEqual(texts(messages), numbers(50))
    assert.ok(messages.every(({ packet }) => packet.qos === qos))
  }
  await receiver.endAsync()
  await sender.endAsync()
}

const unsubscribe = async () => {
  const client = await connect('js-unsubscribe')
  await client.subscribeAsync(['js-a/#', 'js-b/#'], { qos: 1 })
  await client.unsubscribeAsync('js-a/#')
  await client.publishAsync('js-a/1', 'unheard', { qos: 1 })
  await client.publishAsync('js-b/1', 'heard', { qos: 1 })
  assert.deepStrictEqual(texts(await take(client, 1)), ['heard'])
  await client.endAsync()
}

const noSubscribers = async () => {
  const client = await connect('js-lonely')
  const packet = await client.publishAsync('nobody/listens', 'x', { qos: 1 })
  assert.ok(packet === undefined || (packet.reasonCode ?? 0) < 0x80)
  await client.endAsync()
}

const topicAlias = async () => {
  const receiver = await connect('js-alias-receiver', { properties: { topicAliasMaximum: 5 } })
  const sender = await connect('js-alias', { autoAssignTopicAlias: true })
  await receiver.subscribeAsync('alias/#', { qos: 1 })
  const topics = ['alias/a', 'alias/b', 'alias/a', 'alias/a', 'alias/b']
  for (const topic of topics) await sender.publishAsync(topic, topic, { qos: 1 })
  const messages = await take(receiver, topics.length)
  assert.deepStrictEqual(texts(messages), topics)
  assert.deepStrictEqual(messages.map(({ topic }) => topic), topics)
  await receiver.endAsync()
  await sender.endAsync()
}

const persistentSession = async (protocolVersion) => {
  const session = {
    protocolVersion,
    clean: false,
    ...(protocolVersion === 5 ? { properties: { sessionExpiryInterval: 3600 } } : {})
  }
  const first = await connect('js-sleeper', session)
  await first.subscribeAsync('js-sleep/#', { qos: 1 })
  await first.endAsync()
  const sender = await connect('js-waker', { protocolVersion })
  for (const text of numbers(10)) await sender.publishAsync('js-sleep/a', text, { qos: 1 })
  // Messages may come with the CONNACK, so the listener must be there before it.
  const again = mqtt.connect(url, { clientId: 'js-sleeper', reconnectPeriod: 0, ...session })
  const received = []
  await within(new Promise((resolve, reject) => {
    again.on('error', reject)
    again.on('connect', (connack) => { if (!connack.sessionPresent) reject(new Error('no session')) })
    again.on('message', (_, payload) => { if (received.push(payload.toString()) === 10) resolve() })
  }), 'the queue')
  assert.deepStrictEqual(received, numbers(10))
  await again.endAsync()
  await (await connect('js-sleeper', { protocolVersion })).endAsync()
  await sender.endAsync()
}

const messageExpiry = async () => {
  const sender = await connect('js-expiry')
  await sender.publishAsync('js-expiry/a', 'x', { qos: 1, retain: true, properties: { messageExpiryInterval: 600 } })
  await sender.subscribeAsync('js-expiry/a', { qos: 1 })
  const [{ packet }] = await take(sender, 1)
  const left = packet.properties.messageExpiryInterval
  assert.ok(left > 500 && left <= 600, `expiry ${left}`)
  await sender.publishAsync('js-expiry/a', '', { qos: 1, retain: true })
  await sender.endAsync()
}

const cases = [
  ['every QoS, 3.1.1', () => everyQos(4)],
  ['every QoS, 5', () => everyQos(5)],
  ['unsubscribe', unsubscribe],
  ['no subscribers', noSubscribers],
  ['topic alias', topicAlias],
  ['persistent session, 3.1.1', () => persistentSession(4)],
  ['persistent session, 5', () => persistentSession(5)],
  ['message expiry', messageExpiry]
]

const main = async () => {
  for (const [name, run] of cases) {
    console.log(name)
    await run()
  }
  console.log('all passed')
}

main().then(() => process.exit(0), (error) => {
  console.error(error)
  process.exit(1)
})
