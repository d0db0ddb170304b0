// A real OpenID provider on loopback that exchanges tokens (RFC 8693), with in-memory storage.
//
// The grant is ours to write, as the provider's documentation has it; everything around it is
// the provider's own: the authentication of clients, refresh tokens and their rotation,
// introspection and revocation.
//
// Arguments: the folder where npm installed it, and its set-up as JSON:
//   {"clients": [...], "jwks": {...}, "resources": {resource: {"scope", "seconds", "more"}},
//    "subject": {"issuer", "audience", "jwks"}, "actors": {...}}
// It prints its issuer's URL once it listens, and ends when its standard input does. `/asked`
// tells how often each path was asked for.

import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const [folder, text] = process.argv.slice(2);
const { clients, jwks, resources, subject, actors } = JSON.parse(text);
const load = (name) => import(pathToFileURL(createRequire(`${folder}/`).resolve(name)).href);
const { default: Provider, errors } = await load('oidc-provider');
const { createLocalJWKSet, jwtVerify } = await load('jose');

const EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';
const TYPE = 'urn:ietf:params:oauth:token-type:';
const PARAMETERS = [
  'resource', 'audience', 'scope', 'requested_token_type',
  'subject_token', 'subject_token_type', 'actor_token', 'actor_token_type',
];

function resourceServer(ctx, resource) {
  if (!(resource in resources)) throw new errors.InvalidTarget();
  const { scope, seconds } = resources[resource];
  return { scope, audience: resource, accessTokenFormat: 'opaque', accessTokenTTL: seconds };
}

async function verified(token, type, keys, options) {
  if (type !== `${TYPE}access_token` && type !== `${TYPE}jwt`) throw new errors.InvalidRequest('type of token');
  try {
    return (await jwtVerify(token, createLocalJWKSet(keys), options)).payload;
  } catch {
    // RFC 8693 section 2.2.2.
    throw new errors.InvalidRequest('the token is not accepted');
  }
}

function exchange(provider) {
  return async (ctx) => {
    const { params, client } = ctx.oidc;
    const run = await verified(params.subject_token, params.subject_token_type, subject.jwks, {
      issuer: subject.issuer, audience: subject.audience, typ: 'at+jwt',
    });
    const actor = params.actor_token && await verified(params.actor_token, params.actor_token_type, actors, {
      issuer: client.clientId, audience: provider.issuer,
    });
    const resource = params.resource ?? params.audience;
    const info = resourceServer(ctx, resource);
    const known = new Set(info.scope.split(' '));
    const scope = [...(params.scope ?? '').split(' ').filter((one) => known.has(one)), ...resources[resource].more ?? []];

    const grant = new provider.Grant({ clientId: client.clientId, accountId: run.sub });
    grant.addResourceScope(resource, scope.join(' '));
    const common = {
      client, accountId: run.sub, grantId: await grant.save(), gty: 'token_exchange', scope: scope.join(' '),
    };
    const token = new provider.AccessToken(common);
    said.set(token, { run: run.run, act: { sub: actor?.sub ?? client.clientId } });
    token.resourceServer = new provider.ResourceServer(resource, info);
    ctx.body = {
      access_token: await token.save(),
      issued_token_type: `${TYPE}access_token`,
      token_type: token.tokenType,
      expires_in: token.expiration,
      scope: token.scope,
    };
    if (client.grantTypeAllowed('refresh_token')) {
      ctx.body.refresh_token = await new provider.RefreshToken({ ...common, resource }).save();
    }
  };
}

const asked = {};
const said = new WeakMap();
const server = createServer();
server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients,
    jwks,
    scopes: ['openid', 'read', 'write', 'admin'],
    issueRefreshToken: async (ctx, client) => client.grantTypeAllowed('refresh_token'),
    rotateRefreshToken: true,
    extraTokenClaims: (ctx, token) => said.get(token),
    clientAuthMethods: ['private_key_jwt', 'client_secret_basic'],
    features: {
      devInteractions: { enabled: false },
      introspection: { enabled: true },
      revocation: { enabled: true },
      resourceIndicators: { enabled: true, getResourceServerInfo: resourceServer, useGrantedResource: () => true },
    },
    findAccount: (ctx, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  });
  provider.registerGrantType(EXCHANGE, exchange(provider), PARAMETERS);
  const answer = provider.callback();
  server.on('request', (request, response) => {
    if (request.url === '/asked') {
      response.end(JSON.stringify(asked));
      return;
    }
    asked[request.url] = (asked[request.url] ?? 0) + 1;
    answer(request, response);
  });
  console.log(issuer);
});

process.stdin.on('end', () => process.exit()).resume();
