//! Every field of the file: whether it must be there, its default, its bounds.
//!
//! The reader takes its defaults and bounds from here and refuses every field that is not here, so this table
//! cannot differ from what is accepted. A test holds docs/CONFIGURATION.md against it.

use crate::limits;

/// A mapping of the file.
#[derive(Debug)]
pub struct Section {
    /// Path from the top of the file, with `[]` for an item of a list; empty for the file itself.
    pub path: &'static str,
    /// What a message calls it.
    pub called: &'static str,
    pub fields: &'static [Field],
}

#[derive(Debug)]
pub struct Field {
    pub name: &'static str,
    pub rule: Rule,
}

/// What is asked of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    Required,
    /// Absent means: not used.
    Optional,
    /// Absent means this text.
    Default(&'static str),
    /// A whole number within bounds; absent means `default`.
    Number {
        default: u64,
        min: u64,
        max: u64,
    },
}

const fn required(name: &'static str) -> Field {
    Field { name, rule: Rule::Required }
}

const fn optional(name: &'static str) -> Field {
    Field { name, rule: Rule::Optional }
}

const fn default(name: &'static str, text: &'static str) -> Field {
    Field { name, rule: Rule::Default(text) }
}

const fn number(name: &'static str, default: u64, min: u64, max: u64) -> Field {
    assert!(min <= default && default <= max);
    Field { name, rule: Rule::Number { default, min, max } }
}

pub const FILE: Section = Section {
    path: "",
    called: "the file",
    fields: &[
        required("log_origin"),
        required("ledger"),
        required("policy"),
        optional("admin"),
        optional("telemetry"),
        optional("limits"),
        required("listeners"),
        optional("api_keys"),
        required("surfaces"),
        optional("sinks"),
    ],
};

pub const LEDGER: Section = Section {
    path: "ledger",
    called: "`ledger`",
    fields: &[
        required("dir"),
        required("signing_key"),
        number("segment_mib", limits::SEGMENT_MIB_DEFAULT, limits::SEGMENT_MIB_MIN, limits::SEGMENT_MIB_MAX),
        optional("salts"),
        number("heartbeat_s", limits::HEARTBEAT_S_DEFAULT, 0, limits::HEARTBEAT_S_MAX),
        optional("also_sign_with"),
        optional("compromised_keys"),
    ],
};

pub const POLICY: Section = Section {
    path: "policy",
    called: "`policy`",
    fields: &[
        optional("dir"),
        optional("bundle"),
        optional("keys"),
        optional("older"),
        default("require_signature", "true"),
    ],
};

pub const POLICY_OLDER: Section =
    Section { path: "policy.older", called: "`older`", fields: &[required("revision"), required("than")] };

pub const POLICY_KEY: Section = Section {
    path: "policy.keys[]",
    called: "the key",
    fields: &[required("id"), optional("public_key"), optional("secret"), optional("scope")],
};

pub const ADMIN: Section = Section {
    path: "admin",
    called: "`admin`",
    fields: &[
        default("listen", "127.0.0.1:9095"),
        optional("unix"),
        default("allow_remote", "false"),
        optional("host"),
        optional("tls"),
        optional("operators"),
    ],
};

pub const ADMIN_TLS: Section = Section {
    path: "admin.tls",
    called: "`tls`",
    fields: &[required("certificate"), required("key"), optional("client_roots"), default("crls", "[]")],
};

/// In place of the list, as [`API_KEYS`].
pub const OPERATORS: Section =
    Section { path: "admin.operators", called: "`operators`", fields: &[required("file")] };

pub const OPERATOR: Section = Section {
    path: "admin.operators[]",
    called: "an operator",
    fields: &[
        required("id"),
        required("role"),
        optional("prefix"),
        optional("sha256"),
        optional("spiffe"),
        optional("certificate_sha256"),
        optional("uid"),
        optional("not_after"),
    ],
};

pub const TELEMETRY: Section = Section {
    path: "telemetry",
    called: "`telemetry`",
    fields: &[default("format", "json"), default("level", "info")],
};

pub const LIMITS: Section = Section {
    path: "limits",
    called: "`limits`",
    fields: &[
        number(
            "requests_in_flight_max",
            limits::REQUESTS_IN_FLIGHT_MAX_DEFAULT,
            1,
            limits::PERMITS_IN_FLIGHT_MAX as u64,
        ),
        number("connections_max", limits::CONNECTIONS_MAX_DEFAULT, 1, limits::CONNECTIONS_MAX_HARD),
        number("head_ms_max", limits::HEAD_MS_MAX_DEFAULT, 100, limits::HEAD_MS_MAX_HARD),
        number("body_ms_max", limits::BODY_MS_MAX_DEFAULT, 100, limits::BODY_MS_MAX_HARD),
        number("evaluation_ms_max", limits::EVALUATION_MS_MAX_DEFAULT, 1, limits::EVALUATION_MS_MAX_HARD),
        number("evaluation_threads", limits::EVALUATION_THREADS_DEFAULT, 1, limits::EVALUATION_THREADS_MAX),
        number(
            "connection_age_ms_max",
            limits::CONNECTION_AGE_MS_MAX_DEFAULT,
            limits::CONNECTION_AGE_MS_MIN,
            limits::CONNECTION_AGE_MS_MAX_HARD,
        ),
        number("drain_ms_max", limits::DRAIN_MS_MAX_DEFAULT, 0, limits::DRAIN_MS_MAX_HARD),
    ],
};

pub const LISTENER: Section = Section {
    path: "listeners[]",
    called: "a listener",
    fields: &[required("name"), required("address"), optional("tls")],
};

pub const LISTENER_TLS: Section = Section {
    path: "listeners[].tls",
    called: "`tls`",
    fields: &[
        required("certificate"),
        required("key"),
        optional("client_roots"),
        default("crls", "[]"),
        default("client_certificates", "required"),
    ],
};

/// In place of the list: the keys stand in a file of their own, which is read again while the gateway runs.
pub const API_KEYS: Section = Section { path: "api_keys", called: "`api_keys`", fields: &[required("file")] };

pub const API_KEY: Section = Section {
    path: "api_keys[]",
    called: "an API key",
    fields: &[
        required("id"),
        required("prefix"),
        required("sha256"),
        optional("claims"),
        optional("surfaces"),
        optional("not_after"),
    ],
};

pub const SURFACE: Section = Section {
    path: "surfaces[]",
    called: "a surface",
    fields: &[
        required("name"),
        required("listener"),
        optional("hosts"),
        required("package"),
        required("identity"),
        number("permit_age_ms_max", limits::PERMIT_AGE_MS_MAX_DEFAULT, 10, limits::PERMIT_AGE_MS_MAX_HARD),
        required("upstream"),
        optional("credential"),
        optional("redact"),
        optional("facts"),
        optional("budgets"),
        optional("idempotency"),
        optional("holds"),
        optional("status_lookup"),
        required("routes"),
    ],
};

pub const IDENTITY: Section = Section {
    path: "surfaces[].identity",
    called: "`identity`",
    fields: &[optional("mtls"), optional("jwt"), optional("api_key"), default("require_both", "false")],
};

pub const IDENTITY_MTLS: Section = Section {
    path: "surfaces[].identity.mtls",
    called: "`mtls`",
    fields: &[required("trust_domains"), default("paths", "[/**]")],
};

pub const IDENTITY_JWT: Section = Section {
    path: "surfaces[].identity.jwt",
    called: "`jwt`",
    fields: &[
        required("issuer"),
        required("audiences"),
        default("only_our_audiences", "false"),
        required("algorithms"),
        required("keys"),
        default("types", "[at+jwt]"),
        number("leeway_seconds", limits::TOKEN_LEEWAY_SECONDS_DEFAULT, 0, limits::TOKEN_LEEWAY_SECONDS_MAX),
        optional("age_seconds_max"),
    ],
};

pub const IDENTITY_JWT_KEYS: Section = Section {
    path: "surfaces[].identity.jwt.keys",
    called: "`keys`",
    fields: &[
        optional("file"),
        optional("url"),
        default("roots", "webpki"),
        number("timeout_ms_max", limits::KEY_SET_TIMEOUT_MS_DEFAULT, 100, limits::KEY_SET_TIMEOUT_MS_MAX),
        number(
            "refresh_seconds",
            limits::KEY_SET_REFRESH_SECONDS_DEFAULT,
            1,
            limits::KEY_SET_REFRESH_SECONDS_MAX,
        ),
        number(
            "refetch_seconds_min",
            limits::KEY_SET_REFETCH_SECONDS_DEFAULT,
            1,
            limits::KEY_SET_REFETCH_SECONDS_MAX,
        ),
        number(
            "stale_seconds_max",
            limits::KEY_SET_STALE_SECONDS_DEFAULT,
            2,
            limits::KEY_SET_STALE_SECONDS_MAX,
        ),
    ],
};

pub const IDENTITY_JWT_ROOTS: Section =
    Section { path: "surfaces[].identity.jwt.keys.roots", called: "`roots`", fields: &[required("file")] };

pub const IDENTITY_API_KEY: Section = Section {
    path: "surfaces[].identity.api_key",
    called: "`api_key`",
    fields: &[default("headers", "[authorization, x-api-key]")],
};

pub const UPSTREAM: Section = Section {
    path: "surfaces[].upstream",
    called: "`upstream`",
    fields: &[
        required("url"),
        default("roots", "webpki"),
        number("leases_max", limits::LEASES_MAX_DEFAULT, 1, limits::LEASES_MAX_HARD as u64),
        number("idle_ms_max", limits::UPSTREAM_IDLE_MS_MAX_DEFAULT, 1, limits::UPSTREAM_IDLE_MS_MAX_HARD),
        number("connect_ms_max", limits::CONNECT_MS_MAX_DEFAULT, 1, limits::CONNECT_MS_MAX_HARD),
        number("lease_wait_ms_max", limits::LEASE_WAIT_MS_MAX_DEFAULT, 0, limits::LEASE_WAIT_MS_MAX_HARD),
        number(
            "response_head_ms_max",
            limits::RESPONSE_HEAD_MS_MAX_DEFAULT,
            1,
            limits::RESPONSE_HEAD_MS_MAX_HARD,
        ),
        number(
            "response_idle_ms_max",
            limits::RESPONSE_IDLE_MS_MAX_DEFAULT,
            1,
            limits::RESPONSE_IDLE_MS_MAX_HARD,
        ),
    ],
};

pub const ROOTS: Section =
    Section { path: "surfaces[].upstream.roots", called: "`roots`", fields: &[required("file")] };

pub const CREDENTIAL: Section = Section {
    path: "surfaces[].credential",
    called: "`credential`",
    fields: &[
        required("name"),
        required("header"),
        default("prefix", ""),
        optional("from_env"),
        optional("from_file"),
        default("when_sent", "refuse"),
    ],
};

pub const ROUTE: Section = Section {
    path: "surfaces[].routes[]",
    called: "a route",
    fields: &[
        required("action"),
        required("method"),
        required("path"),
        required("body"),
        default("forward", "canonical"),
        default("body_required", "true"),
        number(
            "body_bytes_max",
            limits::BODY_BYTES_MAX_DEFAULT as u64,
            1,
            limits::BODY_BYTES_MAX_HARD as u64,
        ),
        optional("schema"),
        default("headers", "[]"),
        default("idempotency_key", "optional"),
        default("query_lists", "[]"),
        default("path_allows", "[]"),
        default("sensitive", "false"),
    ],
};

pub const REDACT: Section = Section {
    path: "surfaces[].redact",
    called: "`redact`",
    fields: &[default("pointers", "[]"), default("headers", "[]")],
};

pub const OPAQUE: Section =
    Section { path: "surfaces[].routes[].body", called: "`body`", fields: &[required("opaque")] };

pub const SINK: Section = Section {
    path: "sinks[]",
    called: "a sink",
    fields: &[
        required("name"),
        required("kind"),
        number("batch_leaves_max", limits::SINK_BATCH_LEAVES_DEFAULT, 1, limits::SINK_BATCH_LEAVES_MAX),
        optional("url"),
        default("roots", "webpki"),
        number("timeout_ms_max", limits::SINK_TIMEOUT_MS_DEFAULT, 100, limits::SINK_TIMEOUT_MS_MAX),
        optional("credential"),
    ],
};

pub const SINK_ROOTS: Section =
    Section { path: "sinks[].roots", called: "`roots`", fields: &[required("file")] };

pub const SINK_CREDENTIAL: Section = Section {
    path: "sinks[].credential",
    called: "`credential`",
    fields: &[required("header"), default("prefix", ""), optional("from_env"), optional("from_file")],
};

pub const FACT: Section = Section {
    path: "surfaces[].facts[]",
    called: "a fact",
    fields: &[
        required("name"),
        optional("file"),
        optional("url"),
        number(
            "max_age_ms",
            limits::FACT_AGE_MS_MAX_DEFAULT,
            limits::FACT_AGE_MS_MIN,
            limits::FACT_AGE_MS_MAX_HARD,
        ),
        number(
            "timeout_ms",
            limits::FACT_TIMEOUT_MS_MAX_DEFAULT,
            limits::FACT_TIMEOUT_MS_MIN,
            limits::FACT_TIMEOUT_MS_MAX_HARD,
        ),
        number("bytes_max", limits::FACT_BYTES_MAX_DEFAULT, 1, limits::FACT_BYTES_MAX_HARD),
        default("roots", "webpki"),
        optional("credential"),
    ],
};

pub const FACT_ROOTS: Section =
    Section { path: "surfaces[].facts[].roots", called: "`roots`", fields: &[required("file")] };

pub const FACT_CREDENTIAL: Section = Section {
    path: "surfaces[].facts[].credential",
    called: "`credential`",
    fields: &[required("header"), default("prefix", ""), optional("from_env"), optional("from_file")],
};

pub const BUDGET: Section = Section {
    path: "surfaces[].budgets[]",
    called: "a budget",
    fields: &[
        required("name"),
        default("key", "[]"),
        default("amount", "1"),
        required("window"),
        required("unit"),
        optional("actions"),
    ],
};

pub const BUDGET_WINDOW: Section = Section {
    path: "surfaces[].budgets[].window",
    called: "`window`",
    fields: &[optional("calendar"), optional("zone"), optional("sliding")],
};

pub const IDEMPOTENCY: Section = Section {
    path: "surfaces[].idempotency",
    called: "`idempotency`",
    fields: &[
        number("keep_hours", limits::IDEMPOTENCY_KEEP_HOURS_DEFAULT, 1, limits::IDEMPOTENCY_KEEP_HOURS_MAX),
        number(
            "answer_bytes_max",
            limits::KEPT_ANSWER_BYTES_DEFAULT as u64,
            0,
            limits::KEPT_ANSWER_BYTES_MAX as u64,
        ),
    ],
};

pub const HOLDS: Section = Section {
    path: "surfaces[].holds",
    called: "`holds`",
    fields: &[
        number("expire_minutes", limits::HOLD_EXPIRE_MINUTES_DEFAULT, 1, limits::HOLD_EXPIRE_MINUTES_MAX),
        number("wait_seconds_max", limits::HOLD_WAIT_SECONDS_DEFAULT, 0, limits::HOLD_WAIT_SECONDS_MAX),
    ],
};

pub const STATUS_LOOKUP: Section = Section {
    path: "surfaces[].status_lookup",
    called: "`status_lookup`",
    fields: &[
        required("path"),
        optional("header"),
        optional("actions"),
        required("status"),
        optional("echo"),
        required("confirmed"),
        optional("failed"),
        default("not_found", "unknown"),
        number(
            "timeout_ms",
            limits::STATUS_TIMEOUT_MS_DEFAULT,
            limits::STATUS_TIMEOUT_MS_MIN,
            limits::STATUS_TIMEOUT_MS_MAX,
        ),
        number("bytes_max", limits::STATUS_BYTES_DEFAULT, 1, limits::STATUS_BYTES_MAX),
        number("after_ms", limits::STATUS_AFTER_MS_DEFAULT, 0, limits::STATUS_AFTER_MS_MAX),
        number(
            "again_ms_max",
            limits::STATUS_AGAIN_MS_DEFAULT,
            limits::STATUS_AGAIN_MS_MIN,
            limits::STATUS_AGAIN_MS_MAX,
        ),
    ],
};

/// Everything above, for the documentation's test.
pub const SECTIONS: &[&Section] = &[
    &FILE,
    &LEDGER,
    &POLICY,
    &POLICY_OLDER,
    &POLICY_KEY,
    &ADMIN,
    &ADMIN_TLS,
    &OPERATORS,
    &OPERATOR,
    &TELEMETRY,
    &LIMITS,
    &LISTENER,
    &LISTENER_TLS,
    &API_KEYS,
    &API_KEY,
    &SURFACE,
    &IDENTITY,
    &IDENTITY_MTLS,
    &IDENTITY_JWT,
    &IDENTITY_JWT_KEYS,
    &IDENTITY_JWT_ROOTS,
    &IDENTITY_API_KEY,
    &UPSTREAM,
    &ROOTS,
    &CREDENTIAL,
    &ROUTE,
    &OPAQUE,
    &REDACT,
    &FACT,
    &FACT_ROOTS,
    &FACT_CREDENTIAL,
    &BUDGET,
    &BUDGET_WINDOW,
    &IDEMPOTENCY,
    &HOLDS,
    &STATUS_LOOKUP,
    &SINK,
    &SINK_ROOTS,
    &SINK_CREDENTIAL,
];
