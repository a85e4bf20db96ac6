// An OpenID Connect provider: oidc-provider, with people who need no password. Prints its port.
//
// Who signs in is said by the browser (browser.py): a name, and whether with a second factor.
import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

// From wherever it was installed.
const require = createRequire(`${process.argv[2]}/`);
const { Provider } = await import(pathToFileURL(require.resolve('oidc-provider')));

const people = {
  bob: { groups: ['security', 'staff'] },
  carol: { groups: ['risk', 'staff'] },
  eve: { groups: ['elsewhere'] },
};

const server = createServer();
await new Promise((ready) => server.listen(0, '127.0.0.1', ready));
const issuer = `http://127.0.0.1:${server.address().port}`;

const provider = new Provider(issuer, {
  clients: [
    {
      client_id: 'exeat',
      application_type: 'native',
      token_endpoint_auth_method: 'none',
      redirect_uris: ['http://127.0.0.1/callback'],
      response_types: ['code'],
      grant_types: ['authorization_code'],
    },
    {
      client_id: 'exeat-with-a-secret',
      client_secret: 'a secret: with a colon & more',
      application_type: 'native',
      redirect_uris: ['http://127.0.0.1/callback'],
      response_types: ['code'],
      grant_types: ['authorization_code'],
    },
  ],
  acrValues: ['silver', 'gold'],
  claims: { acr: null, amr: null, auth_time: null, openid: ['sub', 'amr'], profile: ['preferred_username', 'groups'] },
  features: { devInteractions: { enabled: false } },
  interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
  pkce: { required: () => true },
  ttl: { Interaction: 600, Session: 3600, Grant: 3600, IdToken: 300, AccessToken: 300 },
  findAccount: (_, sub) => {
    const name = sub.replace(/^id-/, '');
    return { accountId: sub, claims: () => ({ sub, preferred_username: name, ...people[name] }) };
  },
});

const answer = provider.callback();
server.on('request', async (request, response) => {
  const url = new URL(request.url, issuer);
  if (!url.pathname.startsWith('/interaction/')) {
    answer(request, response);
    return;
  }
  try {
    const { prompt, params, session } = await provider.interactionDetails(request, response);
    if (prompt.name === 'login') {
      const who = url.searchParams.get('who');
      if (!who) {
        response.end('who are you?');
        return;
      }
      if (who === 'nobody') {
        const result = { error: 'access_denied', error_description: 'not today' };
        await provider.interactionFinished(request, response, result);
        return;
      }
      const strong = url.searchParams.get('strong') === 'yes';
      const login = { accountId: `id-${who}`, amr: strong ? ['pwd', 'otp'] : ['pwd'], acr: strong ? 'gold' : 'silver' };
      await provider.interactionFinished(request, response, { login });
      return;
    }
    // Everybody agrees to everything.
    const grant = new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
    grant.addOIDCScope('openid profile');
    const grantId = await grant.save();
    await provider.interactionFinished(request, response, { consent: { grantId } });
  } catch (error) {
    response.statusCode = 500;
    response.end(String(error));
  }
});
console.log(issuer);
