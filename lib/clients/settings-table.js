"use strict"

const dns = require("node:dns")
const tls = require("node:tls")

/** adopt.js reads this setting, and the native connection follows it. */
const ADOPTED = Symbol("adopted")
/** This setting does not change which server is reached, or how. */
const HARMLESS = Symbol("harmless")

/** The client follows this setting and a native connection does not, except for values that pass `isAdopted`. */
const delegate = (reason, isAdopted = () => false) => ({ reason, isAdopted })

const all = (mark, names) =>
  Object.fromEntries(
    names
      .trim()
      .split(/\s+/)
      .map((name) => [name, mark]),
  )
const isOff = (value) => !value
const isEmpty = (value) => Object.keys(value).length === 0

/** Options of net.connect() and socket.connect(). */
const NET = {
  ...all(ADOPTED, "host port path family"),
  ...all(
    HARMLESS,
    `allowHalfOpen autoSelectFamilyAttemptTimeout highWaterMark keepAlive keepAliveInitialDelay noDelay onread readable
    timeout typeOfService writable`,
  ),
  autoSelectFamily: delegate("tries one address only", (value) => value === true),
  blockList: delegate("refuses addresses"),
  fd: delegate("uses a file descriptor"),
  handle: delegate("uses a handle"),
  hints: delegate("changes how names are looked up", (value) => value === 0),
  localAddress: delegate("chooses the local address"),
  localPort: delegate("chooses the local port"),
  lookup: delegate("looks names up itself", (value) => value === dns.lookup),
  signal: delegate("can be aborted"),
}

/** Options of tls.connect() and tls.createSecureContext(). */
const TLS = {
  ...NET,
  ...all(ADOPTED, "rejectUnauthorized servername"),
  ca: delegate("is not PEM", isText),
  cert: delegate("is not PEM", isText),
  key: delegate("is encrypted, not PEM, or several", isPlainKey),
  // The first seven are for servers only.
  ...all(
    HARMLESS,
    `dhparam honorCipherOrder requestCert sessionIdContext sessionTimeout SNICallback ticketKeys
    certificateCompression enableTrace minDHSize requestOCSP session`,
  ),
  allowPartialTrustChain: delegate("accepts partial chains", isOff),
  ALPNCallback: delegate("negotiates a protocol"),
  ALPNProtocols: delegate("negotiates a protocol"),
  checkServerIdentity: delegate("verifies the server's name itself", (value) => value === tls.checkServerIdentity),
  ciphers: delegate("chooses ciphers", (value) => value === tls.DEFAULT_CIPHERS),
  clientCertEngine: delegate("uses an OpenSSL engine"),
  crl: delegate("has a revocation list"),
  ecdhCurve: delegate("chooses curves", (value) => value === tls.DEFAULT_ECDH_CURVE),
  maxVersion: delegate("limits the TLS version", (value) => value === "TLSv1.3"),
  minVersion: delegate("limits the TLS version", (value) => value === "TLSv1.2"),
  passphrase: delegate("has a passphrase", isOff),
  pfx: delegate("has a PFX file"),
  privateKeyEngine: delegate("uses an OpenSSL engine"),
  privateKeyIdentifier: delegate("uses an OpenSSL engine"),
  pskCallback: delegate("uses a pre-shared key"),
  secureContext: delegate("has a secure context"),
  secureOptions: delegate("has options of OpenSSL", isOff),
  secureProtocol: delegate("limits the TLS version", isOff),
  sigalgs: delegate("chooses signature algorithms"),
  socket: delegate("brings its own socket"),
}

/** TLS options that override the client's address. */
const TLS_ADDRESS = {
  host: delegate("overrides the host"),
  port: delegate("overrides the port"),
  path: delegate("uses TLS over a unix socket"),
}

/** Options that only a TLS connection reads. */
const ONLY_TLS = all(
  HARMLESS,
  Object.keys(TLS)
    .filter((name) => !(name in NET))
    .join(" "),
)

/** redis 2 and 3, which document their options in the README. */
const CALLBACK_REDIS = {
  ...all(ADOPTED, "auth_pass auth_user db family host password path port prefix tls url user"),
  ...all(
    HARMLESS,
    `camel_case connect_timeout detect_buffers disable_resubscribing enable_offline_queue max_attempts no_ready_check
    parser retry_max_delay retry_strategy retry_unfulfilled_commands return_buffers socket_initial_delay
    socket_keepalive socket_nodelay string_numbers`,
  ),
  rename_commands: delegate("renames commands", isEmpty),
  stream: delegate("brings its own stream"),
}

/** redis 4 to 6: one client. */
const NODE_REDIS = {
  ...all(ADOPTED, "database disableClientInfo keyPrefix name password socket url username"),
  ...all(
    HARMLESS,
    `RESP clientInfoTag clientSideCache commandOptions commandsQueueMaxLength disableOfflineQueue emitInvalidate
    functions himportRegistry isolationPoolOptions legacyMode maintEndpointType maintNotifications
    maintRelaxedCommandTimeout maintRelaxedSocketTimeout modules pingInterval scripts unstableResp3`,
  ),
  credentialsProvider: delegate("streams its credentials", ({ credentials }) => typeof credentials === "function"),
  readonly: delegate("reads from replicas", isOff),
}

/** The credentials of sentinels are read once. */
const NODE_REDIS_SENTINEL_CLIENT = {
  ...NODE_REDIS,
  credentialsProvider: delegate("provides credentials of sentinels", (_value, { password }) => password !== undefined),
}

/** Options that redis 4 to 6 add to those of net.connect() or tls.connect(). */
const NODE_REDIS_SOCKET = {
  ...all(ADOPTED, "tls"),
  ...all(HARMLESS, "connectTimeout reconnectStrategy socketTimeout"),
}

const NODE_REDIS_CLUSTER = {
  ...all(ADOPTED, "defaults keyPrefix rootNodes"),
  ...all(
    HARMLESS,
    `RESP clientSideCache commandOptions functions himportRegistry maxCommandRedirections minimizeConnections modules
    scripts topologyRefreshOnReconnectionAttemptStrategy unstableResp3 useReplicas`,
  ),
  nodeAddressMap: delegate("translates addresses"),
}

const NODE_REDIS_SENTINEL = {
  ...all(ADOPTED, "keyPrefix name nodeClientOptions sentinelClientOptions sentinelRootNodes"),
  ...all(
    HARMLESS,
    `RESP clientSideCache commandOptions functions himportRegistry masterPoolSize maxCommandRediscovers modules
    passthroughClientErrorEvents replicaPoolSize reserveClient scanInterval scripts unstableResp3`,
  ),
  nodeAddressMap: delegate("translates addresses"),
}

const NODE_REDIS_POOL = all(
  HARMLESS,
  "acquireTimeout cleanupDelay clientSideCache maximum minimum unstableResp3Modules",
)

/** ioredis 4 to 6 and iovalkey: a client of one server, of sentinels, or of a node of a cluster. */
const IOREDIS = {
  ...all(
    ADOPTED,
    `connectionName db disableClientInfo enableTLSForSentinelMode family familyFallback host keyPrefix name password path port
    sentinelPassword sentinelTLS sentinelUsername sentinels tls username`,
  ),
  ...all(
    HARMLESS,
    `autoPipeliningIgnoredCommands autoResendUnfulfilledCommands autoResubscribe blockingTimeout blockingTimeoutGrace
    clientInfoTag commandQueue commandTimeout connectTimeout disconnectTimeout dropBufferSupport
    enableAutoPipelining enableOfflineQueue enableReadyCheck failoverDetector himportFieldsets keepAlive lazyConnect
    maxLoadingRetryTime maxRetriesPerRequest maxScriptsCachingTime monitor noDelay offlineQueue parser preferredSlaves
    protocol reconnectOnError replyMapping retryStrategy scripts sentinelCommandTimeout sentinelMaxConnections
    sentinelReconnectStrategy sentinelRetryStrategy showFriendlyErrorStack socketTimeout stringNumbers updateSentinels`,
  ),
  Connector: delegate("connects itself"),
  natMap: delegate("translates addresses"),
  readOnly: delegate("reads from replicas", isOff),
  role: delegate("connects to replicas", (value) => value === "master"),
}

const IOREDIS_CLUSTER = {
  ...all(ADOPTED, "keyPrefix redisOptions"),
  ...all(
    HARMLESS,
    `autoPipeliningIgnoredCommands clusterNodeRetryStrategy clusterRetryStrategy enableAutoPipelining
    enableOfflineQueue enableReadyCheck himportFieldsets lazyConnect maxRedirections maxScriptsCachingTime
    retryDelayOnClusterDown retryDelayOnFailover retryDelayOnMoved retryDelayOnTryAgain scaleReads scripts
    shardedSubscribers showFriendlyErrorStack slotsRefreshInterval slotsRefreshTimeout`,
  ),
  dnsLookup: delegate("looks names up itself", (value) => value === dns.lookup || isIdentity(value)),
  natMap: delegate("translates addresses"),
  // Only with useSRVRecords.
  resolveSrv: HARMLESS,
  useSRVRecords: delegate("finds nodes by SRV records", isOff),
}

/** A node in the list of an ioredis Cluster may have every option of a client, for itself only. */
const IOREDIS_NODE = {
  ...Object.fromEntries(
    Object.entries(IOREDIS).map(([name, entry]) => [
      name,
      entry === ADOPTED ? delegate("is that of one node only", isOff) : entry,
    ]),
  ),
  ...all(ADOPTED, "host port"),
}

/** ioredis reads only the address and family of a sentinel. */
const IOREDIS_SENTINEL = { family: delegate("is that of one sentinel only", isOff) }

const GLIDE = {
  ...all(ADOPTED, "addresses advancedConfiguration clientName credentials databaseId useTLS"),
  ...all(
    HARMLESS,
    `clientAz clientCircuitBreaker clientInfoTag clientSideCache connectionBackoff defaultDecoder inflightRequestsLimit
    lazyConnect libName periodicChecks protocol pubsubSubscriptions readFrom recoveryRequestsQueueSize requestTimeout`,
  ),
  addressResolver: delegate("translates addresses"),
  compression: delegate("compresses values", (value) => value.enabled === false),
  nodeDiscoveryMode: delegate("finds the primary itself"),
  readOnly: delegate("reads from replicas", isOff),
}

/** With several servers the client finds the primary. */
const GLIDE_STANDALONE = { addresses: delegate("has several servers", ({ length }) => length === 1) }

const GLIDE_ADVANCED = {
  ...all(ADOPTED, "tlsAdvancedConfiguration"),
  ...all(HARMLESS, "connectionTimeout pubsubReconciliationIntervalMs refreshTopologyFromInitialNodes tcpNoDelay"),
}

const GLIDE_TLS = all(ADOPTED, "insecure rootCertificates")

const GLIDE_CREDENTIALS = {
  ...all(ADOPTED, "password username"),
  iamConfig: delegate("signs its credentials"),
}

const list = (value) => (Array.isArray(value) ? value : [value])

/** Whether `value` is PEM as Node takes it. */
function isText(value) {
  return list(value).every((one) => typeof one === "string" || ArrayBuffer.isView(one))
}

function isPlainKey(value) {
  // Several keys belong to several certificates, and OpenSSL selects one.
  return isText(value) && list(value).length === 1 && !/ENCRYPTED/.test(String(list(value)[0]))
}

/**
 * Whether `lookup` is `(address, callback) => callback(null, address)`, which makes ioredis connect to names
 * as they are. It is recognized by its source text: a call might query a name server.
 */
function isIdentity(lookup) {
  if (typeof lookup !== "function") return false
  const text = Function.prototype.toString.call(lookup).replace(/\/\*[\s\S]*?\*\/|\/\/.*$/gm, "")
  const [, address, callback, body] =
    /^(?:function\s*\w*|\w+(?=\())?\s*\(\s*([\w$]+)\s*,\s*([\w$]+)\s*\)\s*(?:=>)?\s*([\s\S]*)$/.exec(text) ?? []
  const name = (word) => word?.replaceAll("$", "\\$")
  return new RegExp(
    `^\\{?\\s*(?:return\\s+)?${name(callback)}\\(\\s*(?:null|undefined)\\s*,\\s*${name(address)}\\s*\\)\\s*;?\\s*\\}?$`,
  ).test(body)
}

module.exports = {
  ADOPTED,
  HARMLESS,
  TABLES: {
    callbackRedis: CALLBACK_REDIS,
    glide: GLIDE,
    glideAdvanced: GLIDE_ADVANCED,
    glideCredentials: GLIDE_CREDENTIALS,
    glideStandalone: GLIDE_STANDALONE,
    glideTls: GLIDE_TLS,
    ioredis: IOREDIS,
    ioredisCluster: IOREDIS_CLUSTER,
    ioredisNode: IOREDIS_NODE,
    ioredisSentinel: IOREDIS_SENTINEL,
    net: NET,
    nodeRedis: NODE_REDIS,
    nodeRedisCluster: NODE_REDIS_CLUSTER,
    nodeRedisPool: NODE_REDIS_POOL,
    nodeRedisSentinel: NODE_REDIS_SENTINEL,
    nodeRedisSentinelClient: NODE_REDIS_SENTINEL_CLIENT,
    nodeRedisSocket: { ...NET, ...ONLY_TLS, ...NODE_REDIS_SOCKET },
    nodeRedisTlsSocket: { ...TLS, ...NODE_REDIS_SOCKET },
    tls: TLS,
    tlsAddress: TLS_ADDRESS,
  },
}
