// An OpenID Connect issuer (npm oidc-provider) at which everybody is Ada at once and says yes to everything.
// node oidc_provider.mjs <file of the module> <port> <redirect uri>
import { createServer } from 'node:http'
import { pathToFileURL } from 'node:url'

const [, , module, port, redirectUri] = process.argv
const { default: Provider } = await import(pathToFileURL(module))

const provider = new Provider(`http://localhost:${port}`, {
  clients: [
    {
      client_id: 'mana',
      client_secret: 'a secret: of ours',
      redirect_uris: [redirectUri],
      grant_types: ['authorization_code'],
      response_types: ['code'],
    },
  ],
  pkce: { required: () => true },
  claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['name'] },
  conformIdTokenClaims: false,
  cookies: { keys: ['of a test'] },
  features: { devInteractions: { enabled: false } },
  interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
  findAccount: (_, accountId) => ({
    accountId,
    claims: () => ({ sub: accountId, email: 'ada@peer.example', email_verified: true, name: 'Ada' }),
  }),
})

createServer(async (request, response) => {
  if (!request.url.startsWith('/interaction/')) return provider.callback()(request, response)
  const { params } = await provider.interactionDetails(request, response)
  const grant = new provider.Grant({ accountId: 'ada-there', clientId: params.client_id })
  grant.addOIDCScope(params.scope)
  const result = { login: { accountId: 'ada-there' }, consent: { grantId: await grant.save() } }
  await provider.interactionFinished(request, response, result, { mergeWithLastSubmission: false })
}).listen(Number(port), '127.0.0.1')
