// Stripe's own client (npm stripe) against the Stripe of the tests: it is told an address, and nothing else is different.
// node stripe_client.mjs <file of the module> <port of that Stripe> <port for its deliveries> <what they are signed with>
import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import { pathToFileURL } from 'node:url'

const [, , module, port, deliveriesPort, secret] = process.argv
const { default: Stripe } = await import(pathToFileURL(module))
const address = { protocol: 'http', host: '127.0.0.1', port, apiVersion: '2024-06-20', telemetry: false }
const stripe = new Stripe('sk_test_peer', address)
setTimeout(() => assert.fail('this takes too long'), 120_000).unref()

// An endpoint that believes what the library believes.
const heard = []
const refused = []
const endpoint = createServer(async (request, response) => {
  const chunks = []
  for await (const chunk of request) chunks.push(chunk)
  try {
    const signature = request.headers['stripe-signature']
    heard.push(stripe.webhooks.constructEvent(Buffer.concat(chunks), signature, secret))
    response.writeHead(200).end()
  } catch (error) {
    refused.push(error)
    response.writeHead(400).end()
  }
})
await new Promise((listening) => endpoint.listen(deliveriesPort, '127.0.0.1', listening))
const until = async (is) => {
  while (!is()) await new Promise((later) => setTimeout(later, 20))
}
const told = (type, id) => heard.filter((event) => event.type === type && event.data.object.id === id)

const post = async (path, body = {}) => {
  const answer = await fetch(`http://127.0.0.1:${port}${path}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
    redirect: 'manual',
  })
  assert.ok(answer.status < 400, `${path}: ${answer.status}`)
  return answer
}
const press = (session, button) => post(`/pay/${session.id}/${button}`)
const turn = (knobs) => post('/fake/knobs', knobs)
const refusal = (call) => call.then(() => assert.fail('it was done'), (error) => error)
const ids = (rows) => rows.map((row) => row.id)

// A till, under an idempotency key.
const customer = await stripe.customers.create({ metadata: { user_id: 'ada' } })
assert.equal((await stripe.customers.retrieve(customer.id)).metadata.user_id, 'ada')
const till = (order) => ({
  mode: 'payment',
  customer: customer.id,
  client_reference_id: order,
  metadata: { order_id: order },
  payment_intent_data: { metadata: { order_id: order } },
  line_items: [
    { quantity: 2, price_data: { currency: 'eur', unit_amount: 500, product_data: { name: 'Small' } } },
  ],
  success_url: 'https://app.example/thanks?session={CHECKOUT_SESSION_ID}',
  cancel_url: 'https://app.example/',
})
const session = await stripe.checkout.sessions.create(till('a'), { idempotencyKey: 'k' })
assert.deepEqual(
  [session.object, session.status, session.payment_status, session.amount_total, session.client_reference_id],
  ['checkout.session', 'open', 'unpaid', 1000, 'a'],
)
assert.equal(session.lastResponse.statusCode, 200)
const again = await stripe.checkout.sessions.create(till('a'), { idempotencyKey: 'k' })
assert.deepEqual([again.id, again.lastResponse.headers['idempotent-replayed']], [session.id, 'true'])
const reused = await refusal(stripe.checkout.sessions.create(till('b'), { idempotencyKey: 'k' }))
assert.ok(reused instanceof Stripe.errors.StripeIdempotencyError, reused)

// What is refused is the library's error for it.
const missing = await refusal(stripe.checkout.sessions.retrieve('cs_test_none'))
assert.ok(missing instanceof Stripe.errors.StripeInvalidRequestError, missing)
assert.deepEqual([missing.statusCode, missing.code], [404, 'resource_missing'])
const unknown = await refusal(stripe.customers.create({ surprise: '1' }))
assert.deepEqual([unknown.statusCode, unknown.code, unknown.param], [400, 'parameter_unknown', 'surprise'])
const stranger = await refusal(new Stripe('pk_test_peer', address).customers.create({}))
assert.ok(stranger instanceof Stripe.errors.StripeAuthenticationError, stranger)

// Paid at the page, and told of.
const paid = await press(session, 'pay')
assert.equal(paid.headers.get('location'), `https://app.example/thanks?session=${session.id}`)
const seen = await stripe.checkout.sessions.retrieve(session.id, { expand: ['payment_intent'] })
const payment = seen.payment_intent
assert.deepEqual(
  [seen.status, seen.payment_status, payment.object, payment.status, payment.amount_received, payment.metadata],
  ['complete', 'paid', 'payment_intent', 'succeeded', 1000, { order_id: 'a' }],
)
assert.equal((await stripe.checkout.sessions.retrieve(session.id)).payment_intent, payment.id)
assert.equal((await stripe.charges.retrieve(payment.latest_charge)).payment_intent, payment.id)
await until(() => told('checkout.session.completed', session.id).length > 0)
const [event] = told('checkout.session.completed', session.id)
assert.deepEqual([event.object, event.livemode, event.data.object.payment_status], ['event', false, 'paid'])
assert.equal((await stripe.events.retrieve(event.id)).type, 'checkout.session.completed')
assert.equal(refused.length, 0)

// Lists, page by page, the newest first.
const more = []
for (const order of ['b', 'c', 'd', 'e']) more.unshift(await stripe.checkout.sessions.create(till(order)))
const first = await stripe.checkout.sessions.list({ limit: 2 })
assert.deepEqual([first.object, first.has_more, ids(first.data)], ['list', true, ids(more.slice(0, 2))])
const all = []
for await (const one of stripe.checkout.sessions.list({ limit: 2 })) all.push(one)
assert.deepEqual(ids(all), ids([...more, session]))
const since = await stripe.checkout.sessions.list({ created: { gte: session.created + 3600 } }).autoPagingToArray({ limit: 9 })
assert.deepEqual(since, [])

// Money that goes back.
const refund = await stripe.refunds.create({
  payment_intent: payment.id,
  amount: 300,
  reason: 'requested_by_customer',
  metadata: { refund_id: 'r' },
})
assert.deepEqual([refund.status, refund.amount, refund.payment_intent], ['succeeded', 300, payment.id])
const tooMuch = await refusal(stripe.refunds.create({ payment_intent: payment.id, amount: 701 }))
assert.equal(tooMuch.param, 'amount')
assert.deepEqual(ids((await stripe.refunds.list({ payment_intent: payment.id })).data), [refund.id])
await until(() => told('refund.created', refund.id).length > 0)
await post(`/fake/payments/${payment.id}/fraud-warning`)
const { id: contested } = await (await post(`/fake/payments/${payment.id}/dispute`)).json()
await post(`/fake/disputes/${contested}/lost`)
const dispute = await stripe.disputes.retrieve(contested)
assert.deepEqual([dispute.status, dispute.payment_intent], ['lost', payment.id])
assert.deepEqual(ids((await stripe.disputes.list({ payment_intent: payment.id })).data), [contested])
const warnings = await stripe.radar.earlyFraudWarnings.list({ payment_intent: payment.id })
assert.deepEqual(warnings.data.map((warning) => warning.payment_intent), [payment.id])
await until(() => told('charge.dispute.closed', contested).length > 0)

// A card that is saved, and charged without its owner.
const setup = await stripe.checkout.sessions.create({
  mode: 'setup',
  customer: customer.id,
  payment_method_types: ['card'],
  success_url: 'https://app.example/',
})
await press(setup, 'pay')
const saved = await stripe.checkout.sessions.retrieve(setup.id, { expand: ['setup_intent'] })
const card = saved.setup_intent.payment_method
assert.equal((await stripe.paymentMethods.retrieve(card)).customer, customer.id)
const wish = { amount: 700, currency: 'eur', customer: customer.id, payment_method_types: ['card'] }
const charge = async () => {
  const made = await stripe.paymentIntents.create(wish)
  return [made, await stripe.paymentIntents.confirm(made.id, { payment_method: card, off_session: true }).catch((error) => error)]
}
const [, charged] = await charge()
assert.deepEqual([charged.status, charged.amount_received], ['succeeded', 700])
await post(`/fake/payment-methods/${card}/decline/insufficient_funds`)
const [made, declined] = await charge()
assert.ok(declined instanceof Stripe.errors.StripeCardError, declined)
assert.deepEqual(
  [declined.statusCode, declined.code, declined.decline_code, declined.payment_intent.id],
  [402, 'card_declined', 'insufficient_funds', made.id],
)
assert.equal((await stripe.paymentIntents.cancel(made.id)).status, 'canceled')
assert.equal((await stripe.paymentMethods.detach(card)).customer, null)

// Deliveries that go wrong, one way after the other.
const expire = async (knobs) => {
  await turn(knobs)
  const expired = await stripe.checkout.sessions.expire(more.pop().id)
  assert.equal(expired.status, 'expired')
  return expired
}
const twice = await expire({ duplicates: 1 })
await until(() => told('checkout.session.expired', twice.id).length > 1)
assert.equal(new Set(ids(told('checkout.session.expired', twice.id))).size, 1)

const forged = await expire({ wrongSignature: true })
await until(() => refused.length > 0)
assert.ok(refused.every((error) => error instanceof Stripe.errors.StripeSignatureVerificationError))
assert.deepEqual(told('checkout.session.expired', forged.id), [])
await turn({})
await until(() => told('checkout.session.expired', forged.id).length > 0)

const before = Date.now()
const late = await expire({ delayMs: 1500 })
await until(() => told('checkout.session.expired', late.id).length > 0)
assert.ok(Date.now() - before >= 1500)

const lost = await expire({ drop: true })
await post(`/fake/payments/${payment.id}/fraud-warning`)
// Lost deliveries wait no more when a later one is heard, and are among the events all the same.
await new Promise((later) => setTimeout(later, 3500))
await turn({})
await post(`/fake/payments/${payment.id}/fraud-warning`)
await until(() => heard.filter((one) => one.type === 'radar.early_fraud_warning.created').length > 1)
assert.deepEqual(told('checkout.session.expired', lost.id), [])
const listed = await stripe.events.list({ limit: 100 }).autoPagingToArray({ limit: 1000 })
assert.ok(listed.some((one) => one.type === 'checkout.session.expired' && one.data.object.id === lost.id))

endpoint.close()
endpoint.closeAllConnections()
