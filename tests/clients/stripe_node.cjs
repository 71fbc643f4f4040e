// The official Stripe library, told only where the API is and which key to use.
const [base, key] = process.argv.slice(2);
const Stripe = require('stripe');
const at = new URL(base);
const stripe = new Stripe(key, { host: at.hostname, port: at.port, protocol: 'http', maxNetworkRetries: 2, telemetry: false });

(async () => {
  const intent = await stripe.paymentIntents.create(
    {
      amount: 1999,
      currency: 'usd',
      payment_method_types: ['card'],
      metadata: { order: '6735', note: 'a b & c' },
      expand: ['customer'],
    },
    { idempotencyKey: 'order-6735' },
  );
  const listed = await stripe.paymentIntents.list({ limit: 3, created: { gte: 1700000000 } });
  const read = await stripe.paymentIntents.retrieve('pi_1');
  let denied = null;
  try {
    await stripe.paymentIntents.create({ amount: 5000000, currency: 'usd' });
  } catch (error) {
    denied = { type: error.constructor.name, status: error.statusCode };
  }
  console.log(JSON.stringify({ id: intent.id, listed: listed.data.length, read: read.id, denied }));
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
