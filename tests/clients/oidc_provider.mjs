// A real OpenID provider on loopback, with in-memory storage.
//
// Arguments: the folder where npm installed it, and its set-up as JSON:
//   {"jwt": {resource: seconds}, "opaque": resource, "clients": [...], "jwks": {...}}
// It prints its issuer's URL once it listens, and ends when its standard input does.

import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const [folder, text] = process.argv.slice(2);
const { jwt, opaque, clients, jwks } = JSON.parse(text);
const { default: Provider, errors } = await import(
  pathToFileURL(createRequire(`${folder}/`).resolve('oidc-provider')).href
);

function resourceServer(ctx, resource) {
  if (resource === opaque) return { scope: 'read', accessTokenFormat: 'opaque', accessTokenTTL: 300 };
  if (!(resource in jwt)) throw new errors.InvalidTarget();
  return {
    scope: 'read write',
    audience: resource,
    accessTokenFormat: 'jwt',
    accessTokenTTL: jwt[resource],
    jwt: { sign: { alg: 'RS256' } },
  };
}

const server = createServer();
server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients,
    jwks,
    cookies: { keys: ['not a secret'] },
    scopes: ['openid', 'read', 'write'],
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: true },
      resourceIndicators: { enabled: true, getResourceServerInfo: resourceServer, useGrantedResource: () => true },
    },
    findAccount: (ctx, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  });
  server.on('request', provider.callback());
  console.log(issuer);
});

process.stdin.on('end', () => process.exit()).resume();
