//! Every bound, with its unit last. Config may lower or raise those marked as defaults, up to the hard
//! limits here; relations between bounds are asserted at compile time.

/// A name in config: surface, action, credential.
pub const NAME_BYTES_MAX: usize = 64;

// Message head (ingress, canonical).
/// Request line and headers as they come.
pub const HEAD_BYTES_MAX: usize = 32 * 1024;
pub const HEADERS_MAX: usize = 100;
pub const TARGET_BYTES_MAX: usize = 8 * 1024;
pub const QUERY_PAIRS_MAX: usize = 256;
pub const PATH_SEGMENTS_MAX: usize = 64;

// Body (canonical).
/// Default bound of a route's body.
pub const BODY_BYTES_MAX_DEFAULT: usize = 1024 * 1024;
/// A route may declare no more than this.
pub const BODY_BYTES_MAX_HARD: usize = 64 * 1024 * 1024;
pub const JSON_DEPTH_MAX: usize = 64;
/// Values and member names in one JSON body.
pub const JSON_VALUES_MAX: usize = 100_000;
pub const FORM_KEYS_MAX: usize = 1_000;
pub const FORM_DEPTH_MAX: usize = 16;

// Log (merkle, ledger).
/// C2SP tlog-tiles: an entry's length is a u16.
pub const ENTRY_BYTES_MAX: usize = 65_535;
pub const FRAME_ALIGNMENT_BYTES: usize = 4_096;
pub const SEGMENT_BYTES_DEFAULT: u64 = 64 * 1024 * 1024;
/// A segment must hold the largest entry in a frame of its own, many times over.
pub const SEGMENT_BYTES_MIN: u64 = 256 * 1024;
pub const SEGMENT_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Leaves in one group commit.
pub const FRAME_ENTRIES_MAX: usize = 4_096;
/// One frame as it is read back into memory, without padding. A frame never spans segments.
pub const FRAME_BYTES_MAX: usize = 24 * 1024 * 1024;
/// A batch takes no more items once it holds this much.
pub const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// What one decision may store beside its leaf (its policy input).
pub const EVIDENCE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// C2SP signed-note.
pub const NOTE_SIGNATURES_MAX: usize = 16;
pub const NOTE_BYTES_MAX: usize = 64 * 1024;
/// Decisions and rejections waiting for the committer; outcomes are bounded by the permits in flight.
pub const QUEUED_DECISIONS_MAX: usize = 8_192;
/// Policy activations, and what operators did, waiting for the committer.
pub const QUEUED_EVENTS_MAX: usize = 1_024;
/// Answers waiting to be kept beside their outcomes; past this an outcome is written without.
pub const QUEUED_ANSWERS_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Frames that a stop may need when the disk is full.
pub const STOP_FRAMES_MAX: usize = 4;
/// An exact decimal of a reserve as text: the engine's 28 digits, a point, and what a caller writes around them.
pub const AMOUNT_BYTES_MAX: usize = 64;
/// What one decision may take of budgets: its outcome names each, alone in a frame of one block.
pub const RESERVES_MAX: usize = 16;
const _: () = assert!(RESERVES_MAX * (NAME_BYTES_MAX + 48) + 2_048 <= FRAME_ALIGNMENT_BYTES);
/// After the disk was found full, how long before room is looked for again.
pub const ROOM_RETRY_MS: u64 = 250;
/// The `checkpoint` file is rewritten at most once in this time, except at close.
pub const PUBLISH_INTERVAL_MS: u64 = 100;
/// Refusal leaves an actor may cause at once, and then one a second.
pub const REJECTIONS_BURST: u32 = 16;
pub const REJECTION_REFILL_MS: u64 = 1_000;
/// Actors whose refusals are counted at one time.
pub const REJECTION_ACTORS_MAX: usize = 4_096;
/// After a pass over new frames the archiver waits this long, so that it takes many leaves at once.
pub const ARCHIVE_PASS_INTERVAL_MS: u64 = 4;
/// Bytes of leaves that wait in memory for it; past that they are read from the frames.
pub const ARCHIVE_HANDED_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Its durable position moves at most once in this time, unless so many bundles of 256 leaves are done.
pub const ARCHIVE_SYNC_INTERVAL_MS: u64 = 1_000;
pub const ARCHIVE_SYNC_BUNDLES_MAX: usize = 1_024;
/// Bundles whose index rows are held in memory.
pub const ARCHIVE_ROWS_BUNDLES_MAX: usize = 64;
/// More files than this are made durable by one sync of their whole file system.
pub const ARCHIVE_SYNC_FILES_MAX: usize = 64;
/// After an error.
pub const ARCHIVE_RETRY_MS: u64 = 1_000;
/// How long the archive may catch up when the ledger is closed.
pub const ARCHIVE_CLOSE_MS_MAX: u64 = 5_000;
/// How long the end of its thread is waited for: it may hang in a file, and nobody's receipt depends on it.
pub const ARCHIVE_END_MS_MAX: u64 = ARCHIVE_CLOSE_MS_MAX + 2_000;
pub const INDEX_CACHE_BYTES: usize = 16 * 1024 * 1024;
/// Segments whose frames a reader of evidence remembers: 16 bytes a frame, and at most one frame a block.
pub const SEGMENTS_MAPPED_MAX: usize = 8;
/// Leaves, and bytes of them, that one question to the reader gives back.
pub const READ_ENTRIES_MAX: usize = 4_096;
pub const READ_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bundles that one search reads before it gives back what it has, and where to go on.
pub const SEARCH_BUNDLES_MAX: usize = 16;
/// Problems a verification report names one by one; the rest are counted.
pub const PROBLEMS_NAMED_MAX: usize = 100;
/// So many of each kind are named in any case.
pub const PROBLEMS_OF_KIND_NAMED: usize = 8;

// Verification (verify).
/// Nesting of a policy input: what a request's body may have, and room for the members around it.
pub const EVIDENCE_DEPTH_MAX: usize = 128;
/// Frames are handed to a thread together once they have this many bytes.
pub const VERIFY_BATCH_BYTES: usize = 256 * 1024;
/// Such batches on their way to one thread.
pub const VERIFY_BATCHES_WAITING: usize = 2;
pub const VERIFY_THREADS_MAX: usize = 16;
/// Closed permits that are remembered, for the decisions that name them as superseded.
pub const CLOSED_PERMITS_REMEMBERED: usize = 1_024;
/// PERMITs with an outcome that is not known, remembered until somebody vouches for one.
pub const INDETERMINATE_REMEMBERED: usize = 262_144;
/// Policy revisions that are remembered of one epoch.
pub const REVISIONS_REMEMBERED: usize = 4_096;
/// Keys that a log may have had.
pub const LOG_KEYS_MAX: usize = 1_024;
/// How often a checkpoint that does not yet cover all leaves is read again.
pub const CHECKPOINT_POLL_MS: u64 = 20;
/// Default of `interlock verify --wait-ms`: many times what a gateway takes to publish a checkpoint.
pub const CHECKPOINT_WAIT_MS_DEFAULT: u64 = 2_000;
/// Names that are looked at in one directory of tiles, which has at most some more than a thousand.
pub const DERIVED_NAMES_MAX: usize = 4_096;
/// Files beside the tiles that a report names; the rest are counted.
pub const STRANGE_FILES_NAMED_MAX: usize = 20;
/// C2SP tlog-policy asks for at least 32 of each.
pub const TRUST_LINES_MAX: usize = 256;
pub const TRUST_FILE_BYTES_MAX: usize = 64 * 1024;
/// Hashes of one inclusion path: as many levels as a tree of 2^64 leaves has.
pub const PROOF_HASHES_MAX: usize = 64;
/// A tlog-proof: lines of hashes, extra data, the checkpoint.
pub const PROOF_BYTES_MAX: usize = 64 * 1024 + NOTE_BYTES_MAX;
const _: () = assert!(JSON_DEPTH_MAX + 16 <= EVIDENCE_DEPTH_MAX);
const _: () = assert!(
    CHECKPOINT_POLL_MS < PUBLISH_INTERVAL_MS && PUBLISH_INTERVAL_MS * 10 <= CHECKPOINT_WAIT_MS_DEFAULT
);

// Sealed segments and restart points (verify::seekable, ledger::seal, ledger::restart).
/// Bytes of a segment that are compressed together: what must be read to see one of them.
pub const SEALED_BLOCK_BYTES: usize = 1024 * 1024;
pub const SEALED_BLOCKS_MAX: usize = (SEGMENT_BYTES_MAX / SEALED_BLOCK_BYTES as u64) as usize;
/// After a segment could not be sealed, how long before it is tried again.
pub const SEAL_RETRY_MS: u64 = 60_000;
/// A restart point names every open permit.
pub const RESTART_BYTES_MAX: usize = 1024 * 1024;
/// Restart points that are kept, the newest ones.
pub const RESTARTS_MAX: usize = 8;
/// A snapshot of the state that follows the log.
pub const STATE_BYTES_MAX: usize = 2 * 1024 * 1024 * 1024;
/// Snapshots that are kept, the newest ones. The newest may be ahead of the checkpoint that a crash leaves.
pub const STATES_MAX: usize = 3;
/// Snapshots that wait to be written; of more, the oldest is given up.
pub const STATES_WAITING_MAX: usize = 2;
const _: () = assert!(STATES_MAX >= 2 && STATES_MAX <= RESTARTS_MAX);
const _: () = assert!(SEGMENT_BYTES_MAX.is_multiple_of(SEALED_BLOCK_BYTES as u64));
const _: () = assert!(PERMITS_IN_FLIGHT_MAX * 80 + 64 * 1024 <= RESTART_BYTES_MAX);

// Requests in flight (pep, ledger).
pub const PERMITS_IN_FLIGHT_MAX: usize = 8_192;

/// Upstream connections of one surface.
pub const LEASES_MAX_HARD: usize = 4_096;

// Config: the file itself, and the defaults and bounds of what it may declare.
/// The config file, and each schema, certificate, key and secret file it names.
pub const CONFIG_FILE_BYTES_MAX: u64 = 1024 * 1024;
pub const CONFIG_DEPTH_MAX: usize = 16;
/// Errors that one run reports; the rest are counted.
pub const CONFIG_PROBLEMS_MAX: usize = 100;
pub const SURFACES_MAX: usize = 256;
pub const ROUTES_PER_SURFACE_MAX: usize = 1_024;
pub const API_KEYS_MAX: usize = 10_000;
/// Signing keys of one log that are no longer to be believed.
pub const COMPROMISED_KEYS_MAX: usize = 64;
/// A secret that is injected into a header.
pub const SECRET_BYTES_MAX: usize = 4 * 1024;

pub const SEGMENT_MIB_DEFAULT: u64 = SEGMENT_BYTES_DEFAULT / MIB_BYTES;
/// A segment keeps room for the outcome of every open permit: 128 permits a MiB, at most [`PERMITS_IN_FLIGHT_MAX`]. One
/// policy input may take half of it.
pub const SEGMENT_MIB_MIN: u64 = 4;
pub const SEGMENT_MIB_MAX: u64 = SEGMENT_BYTES_MAX / MIB_BYTES;
/// Seconds without a leaf after which a heartbeat is written: one frame of 4 KiB each. A day is as long as anybody should
/// wait to hear that a log is alive.
pub const HEARTBEAT_S_DEFAULT: u64 = 3_600;
pub const HEARTBEAT_S_MAX: u64 = 86_400;
pub const MIB_BYTES: u64 = 1024 * 1024;

pub const REQUESTS_IN_FLIGHT_MAX_DEFAULT: u64 = 1_024;
pub const CONNECTIONS_MAX_DEFAULT: u64 = 4_096;
pub const CONNECTIONS_MAX_HARD: u64 = 65_536;
pub const HEAD_MS_MAX_DEFAULT: u64 = 10_000;
pub const HEAD_MS_MAX_HARD: u64 = 60_000;
pub const BODY_MS_MAX_DEFAULT: u64 = 30_000;
pub const BODY_MS_MAX_HARD: u64 = 600_000;
pub const EVALUATION_MS_MAX_DEFAULT: u64 = 100;
pub const EVALUATION_MS_MAX_HARD: u64 = 10_000;
pub const EVALUATION_THREADS_DEFAULT: u64 = 4;
pub const EVALUATION_THREADS_MAX: u64 = 256;
pub const DRAIN_MS_MAX_DEFAULT: u64 = 30_000;
pub const DRAIN_MS_MAX_HARD: u64 = 600_000;

/// From the capture of what was read to the first byte sent.
pub const PERMIT_AGE_MS_MAX_DEFAULT: u64 = 1_000;
pub const PERMIT_AGE_MS_MAX_HARD: u64 = 60_000;

pub const LEASES_MAX_DEFAULT: u64 = 64;
/// Below the five seconds after which common servers close an idle connection.
pub const UPSTREAM_IDLE_MS_MAX_DEFAULT: u64 = 4_000;
pub const UPSTREAM_IDLE_MS_MAX_HARD: u64 = 600_000;
pub const CONNECT_MS_MAX_DEFAULT: u64 = 2_000;
pub const CONNECT_MS_MAX_HARD: u64 = 60_000;
pub const LEASE_WAIT_MS_MAX_DEFAULT: u64 = 1_000;
pub const LEASE_WAIT_MS_MAX_HARD: u64 = 60_000;
pub const RESPONSE_HEAD_MS_MAX_DEFAULT: u64 = 30_000;
pub const RESPONSE_HEAD_MS_MAX_HARD: u64 = 600_000;
pub const RESPONSE_IDLE_MS_MAX_DEFAULT: u64 = 60_000;
pub const RESPONSE_IDLE_MS_MAX_HARD: u64 = 3_600_000;

// API keys (authority).
/// An API key begins with this many bytes that are not secret; it is found by them.
pub const API_KEY_PREFIX_BYTES: usize = 12;
/// Prefix and at least 128 random bits in base64.
pub const API_KEY_BYTES_MIN: usize = API_KEY_PREFIX_BYTES + 22;
pub const API_KEY_BYTES_MAX: usize = 256;

// Certificates and tokens (authority, ingress).
/// SPIFFE ID specification, section 2.3: no more than 2,048 bytes; a trust domain no more than 255.
pub const SPIFFE_ID_BYTES_MAX: usize = 2_048;
pub const TRUST_DOMAIN_BYTES_MAX: usize = 255;
/// Trust domains, and patterns of paths, that one surface takes.
pub const TRUST_DOMAINS_MAX: usize = 64;
pub const SPIFFE_PATTERNS_MAX: usize = 256;
/// Files of revoked certificates that one listener reads.
pub const CRL_FILES_MAX: usize = 16;
/// A certificate is verified again when it was verified this long ago, though its connection lives on.
pub const PEER_VERIFIED_MS_MAX: u64 = 60_000;
/// How long a client connection may live before it is closed between two requests.
pub const CONNECTION_AGE_MS_MAX_DEFAULT: u64 = 3_600_000;
pub const CONNECTION_AGE_MS_MIN: u64 = 100;
pub const CONNECTION_AGE_MS_MAX_HARD: u64 = 86_400_000;
/// A bearer token, its three parts together.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;
pub const TOKEN_DEPTH_MAX: usize = 16;
/// Values and member names in one part of a token.
pub const TOKEN_VALUES_MAX: usize = 512;
pub const TOKEN_LEEWAY_SECONDS_DEFAULT: u64 = 30;
pub const TOKEN_LEEWAY_SECONDS_MAX: u64 = 300;
pub const TOKEN_AGE_SECONDS_MAX_HARD: u64 = 30 * 86_400;
pub const TOKEN_AUDIENCES_MAX: usize = 16;
/// A key set: its bytes, its keys, and values and member names in it.
pub const KEY_SET_BYTES_MAX: usize = 256 * 1024;
pub const KEY_SET_KEYS_MAX: usize = 256;
pub const KEY_SET_VALUES_MAX: usize = 16 * 1024;
/// Bytes of an RSA modulus: 2,048 to 8,192 bits.
pub const RSA_MODULUS_BYTES_MIN: usize = 256;
pub const RSA_MODULUS_BYTES_MAX: usize = 1_024;
/// How often a key set is fetched, and for how long the last one is believed if it cannot be.
pub const KEY_SET_REFRESH_SECONDS_DEFAULT: u64 = 300;
pub const KEY_SET_REFRESH_SECONDS_MAX: u64 = 86_400;
pub const KEY_SET_STALE_SECONDS_DEFAULT: u64 = 3_600;
pub const KEY_SET_STALE_SECONDS_MAX: u64 = 7 * 86_400;
pub const KEY_SET_TIMEOUT_MS_DEFAULT: u64 = 5_000;
pub const KEY_SET_TIMEOUT_MS_MAX: u64 = 60_000;
/// Between two fetches of one key set, whatever asks for them: an unknown `kid`, a signal, a failure.
pub const KEY_SET_REFETCH_SECONDS_DEFAULT: u64 = 30;
pub const KEY_SET_REFETCH_SECONDS_MAX: u64 = 3_600;
/// How often the files that identity rests on are looked at.
pub const IDENTITY_POLL_MS: u64 = 2_000;
const _: () = assert!(TOKEN_BYTES_MAX < HEAD_BYTES_MAX);
const _: () = assert!(KEY_SET_REFETCH_SECONDS_DEFAULT <= KEY_SET_REFRESH_SECONDS_DEFAULT);
const _: () = assert!(KEY_SET_REFRESH_SECONDS_DEFAULT < KEY_SET_STALE_SECONDS_DEFAULT);

/// Days before a certificate's end at which `check` begins to warn.
pub const CERTIFICATE_WARNING_DAYS: u64 = 14;

const _: () = assert!(REQUESTS_IN_FLIGHT_MAX_DEFAULT <= PERMITS_IN_FLIGHT_MAX as u64);
const _: () =
    assert!(PERMITS_IN_FLIGHT_MAX as u64 * FRAME_ALIGNMENT_BYTES as u64 <= SEGMENT_BYTES_DEFAULT / 2);
const _: () = assert!(LEASES_MAX_DEFAULT <= LEASES_MAX_HARD as u64);
const _: () = assert!(EVALUATION_MS_MAX_DEFAULT < PERMIT_AGE_MS_MAX_DEFAULT);
const _: () = assert!(SECRET_BYTES_MAX < HEAD_BYTES_MAX);

/// When the log is full, every open permit must still find room for its outcome, alone in its own frame.
/// The other half of the segment is for starts, stops and refusal counts.
const _: () =
    assert!(PERMITS_IN_FLIGHT_MAX as u64 * FRAME_ALIGNMENT_BYTES as u64 <= SEGMENT_BYTES_DEFAULT / 2);
const _: () =
    assert!(SEGMENT_BYTES_MIN >= 2 * ENTRY_BYTES_MAX as u64 && SEGMENT_BYTES_MIN <= SEGMENT_BYTES_DEFAULT);
const _: () = assert!(SEGMENT_BYTES_MIN.is_multiple_of(FRAME_ALIGNMENT_BYTES as u64));
/// The largest decision fits on top of a batch that was just under its own bound.
const _: () = assert!(BATCH_BYTES_MAX + EVIDENCE_BYTES_MAX + 2 * ENTRY_BYTES_MAX < FRAME_BYTES_MAX);
const _: () =
    assert!(FRAME_BYTES_MAX as u64 <= SEGMENT_BYTES_DEFAULT && FRAME_BYTES_MAX <= u32::MAX as usize);
const _: () = assert!(TARGET_BYTES_MAX < HEAD_BYTES_MAX);
const _: () = assert!(HEAD_BYTES_MAX < ENTRY_BYTES_MAX);
const _: () = assert!(BODY_BYTES_MAX_DEFAULT <= BODY_BYTES_MAX_HARD);

// The upstream's answer (upstream).
pub const RESPONSE_HEAD_BYTES_MAX: usize = 256 * 1024;
pub const RESPONSE_HEADERS_MAX: usize = 200;

// Client connections (ingress).
pub const READ_BYTES: usize = 16 * 1024;
/// After a refusal, how long and how much of what the client still sends is read and dropped.
pub const LINGER_MS_MAX: u64 = 1_000;
pub const LINGER_BYTES_MAX: usize = 4 * 1024 * 1024;

// Deciding (pep).
/// Evaluations of one request that may end in a permit of which nothing is sent.
pub const EVALUATIONS_MAX: u32 = 3;

// State that decisions rest on (pep).
/// How long a request that policy holds for people can be approved, unless the surface says otherwise.
pub const HOLD_EXPIRE_MINUTES_DEFAULT: u64 = 60;
/// The longest `Prefer: wait=N` of a surface that does not say otherwise, and of any surface.
pub const HOLD_WAIT_SECONDS_DEFAULT: u64 = 60;
pub const HOLD_WAIT_SECONDS_MAX: u64 = 600;
/// How often a waiting request looks at its hold.
pub const HOLD_POLL_MS: u64 = 200;
/// Requests that wait for their holds at once.
pub const HOLD_WAITERS_MAX: usize = 256;
/// How often expired holds are looked for.
pub const HOLD_SWEEP_MS: u64 = 1_000;
/// How long a request waits for others that draw on the same budget, before it goes on without its turn.
pub const TURN_WAIT_MS_MAX: u64 = 10_000;
/// The largest answer that is kept for repeated requests, and all of them that are held in memory, bytes.
pub const KEPT_ANSWER_BYTES_DEFAULT: usize = 64 * 1024;
pub const KEPT_ANSWER_BYTES_MAX: usize = 1024 * 1024;
pub const KEPT_ANSWERS_BYTES_MAX: u64 = 32 * 1024 * 1024;
const _: () = assert!(HOLD_WAIT_SECONDS_DEFAULT <= HOLD_WAIT_SECONDS_MAX);
const _: () = assert!(HOLD_POLL_MS < 1_000 && HOLD_WAITERS_MAX < REQUESTS_IN_FLIGHT_MAX_DEFAULT as usize);

/// Pieces of an answer's body on their way to a slow client.
pub const RESPONSE_PIECES_MAX: usize = 16;
pub const ACCEPT_RETRY_MS: u64 = 50;
pub const HTTP2_STREAMS_MAX: u32 = 128;

// Admin listener.
pub const ADMIN_CONNECTIONS_MAX: usize = 32;
pub const ADMIN_CONNECTION_MS_MAX: u64 = 60_000;

/// Answers to `GET /receipts?follow=true` that are open at once.
pub const ADMIN_FOLLOWERS_MAX: usize = 16;
/// Reads of files for the admin listener at once, off the async threads.
pub const ADMIN_READS_MAX: usize = 4;
/// How long a client of the admin listener may take nothing of an answer that waits for it.
pub const ADMIN_STALL_MS_MAX: u64 = 30_000;
/// Leaves that are read at once for one answer: as many as an entry bundle holds.
pub const ADMIN_LEAVES_MAX: usize = 256;
/// How long a read waits for what is durable and not readable yet.
pub const ADMIN_UP_TO_DATE_MS_MAX: u64 = 1_000;
/// How long followers and sinks may take for the last leaves when the gateway stops.
pub const LAST_LEAVES_MS_MAX: u64 = 2_000;
const _: () = assert!(ADMIN_FOLLOWERS_MAX < ADMIN_CONNECTIONS_MAX);
pub const OPERATORS_MAX: usize = 1_000;
/// Requests that one operator may send at once, after a pause.
pub const OPERATOR_REQUESTS_BURST: u64 = 60;
pub const OPERATOR_REQUESTS_PER_SECOND: u64 = 10;
const _: () = assert!(OPERATOR_REQUESTS_PER_SECOND > 0 && OPERATOR_REQUESTS_PER_SECOND <= 1_000);
/// Of one address or local user, before anybody is asked who they are; several operators may come from one.
pub const ADMIN_PEER_REQUESTS_BURST: u64 = 600;
pub const ADMIN_PEER_REQUESTS_PER_SECOND: u64 = 100;
/// Addresses and local users that are told apart at once.
pub const ADMIN_PEERS_MAX: usize = 1_024;
const _: () = assert!(ADMIN_PEER_REQUESTS_PER_SECOND > 0 && ADMIN_PEER_REQUESTS_PER_SECOND <= 1_000);
const _: () = assert!(ADMIN_PEER_REQUESTS_BURST >= OPERATOR_REQUESTS_BURST);
/// Body of one request to operate, bytes.
pub const ADMIN_BODY_BYTES_MAX: usize = 16 * 1024;
/// From the head of such a request to its whole body.
pub const ADMIN_BODY_MS_MAX: u64 = 5_000;
/// A TLS handshake with the admin listener.
pub const ADMIN_HANDSHAKE_MS_MAX: u64 = 10_000;
/// Why an operator acts, and what a reconciliation rests on: bytes of UTF-8.
pub const OPERATOR_TEXT_BYTES_MAX: usize = 1_000;
/// Holds, freezes, quarantines or outcomes in one answer.
pub const ADMIN_LISTED_MAX: usize = 200;
/// Connections to a Unix socket that wait to be accepted.
pub const ADMIN_BACKLOG: u32 = 64;
/// How often the gateway looks for holds that have expired.
pub const HOLDS_EXPIRE_EVERY_MS: u64 = 1_000;

// Sinks (sinks).
pub const SINKS_MAX: usize = 16;
pub const SINK_BATCH_LEAVES_DEFAULT: u64 = 256;
pub const SINK_BATCH_LEAVES_MAX: u64 = 4_096;
/// A batch takes no more leaves once it holds this much: below what common collectors take in one request.
pub const SINK_BATCH_BYTES_MAX: usize = 512 * 1024;
pub const SINK_TIMEOUT_MS_DEFAULT: u64 = 10_000;
pub const SINK_TIMEOUT_MS_MAX: u64 = 300_000;
/// After a failed delivery; doubles up to the second bound.
pub const SINK_RETRY_MS_MIN: u64 = 100;
pub const SINK_RETRY_MS_MAX: u64 = 30_000;
/// How often at most a sink's position is written: what was delivered since is delivered again after a crash.
pub const SINK_POSITION_MS: u64 = 1_000;
/// What is read of the answer to a request of the gateway's own.
pub const OWN_ANSWER_BYTES_MAX: usize = 64 * 1024;
const _: () = assert!(SINK_RETRY_MS_MIN <= SINK_RETRY_MS_MAX);
const _: () = assert!(SINK_BATCH_LEAVES_DEFAULT <= SINK_BATCH_LEAVES_MAX);

// Policy bundles (policy::source, policy::check).
/// Rego and data files in one bundle, tests included.
pub const POLICY_FILES_MAX: usize = 512;
pub const POLICY_FILE_BYTES_MAX: usize = 1024 * 1024;
/// All files together. The log keeps them beside the leaf that activates them, in one frame.
pub const POLICY_BUNDLE_BYTES_MAX: usize = 15 * 1024 * 1024;
/// Names and digests of a bundle's files as they stand in that leaf.
pub const POLICY_FILE_LIST_BYTES_MAX: usize = 60_000;
/// Values and member names in one data document.
pub const POLICY_DATA_VALUES_MAX: usize = 200_000;
/// Bytes of one line of Rego; the engine's own bound is 1,024 columns.
pub const POLICY_LINE_BYTES_MAX: usize = 1_000;
/// Open `[` and `{` at one place of Rego: the engine's parse time doubles with each literal level.
pub const POLICY_NESTING_MAX: usize = 10;
/// Open `(` at one place of Rego.
pub const POLICY_PARENTHESES_MAX: usize = 24;
/// Operators, dots and opening brackets in a row of one expression: each is a level of the engine's syntax tree.
pub const POLICY_OPERATORS_MAX: usize = 512;
pub const POLICY_DIRECTORY_DEPTH_MAX: usize = 16;
/// Rules that may stand on each other: a longer chain is stack.
pub const POLICY_RULE_CHAIN_MAX: usize = 64;
/// A bundle as one file, packed.
pub const POLICY_ARCHIVE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Files and directories in it.
pub const POLICY_ARCHIVE_ENTRIES_MAX: usize = 1_024;
/// Unpacked bytes for each packed one, beyond the least that any may unpack to.
pub const POLICY_ARCHIVE_RATIO_MAX: usize = 200;
pub const POLICY_UNPACKED_BYTES_MIN: usize = 1024 * 1024;
pub const POLICY_UNPACKED_BYTES_MAX: usize = 24 * 1024 * 1024;
/// Keys that may sign a bundle.
pub const POLICY_KEYS_MAX: usize = 16;
/// `.manifest`, `.signatures.json` and what is signed.
pub const POLICY_SIGNATURE_BYTES_MAX: usize = 1024 * 1024;
/// How often what policy is read from is looked at.
pub const POLICY_POLL_MS: u64 = 1_000;
/// What has changed is read again after this long, and used when it is the same: nobody activates half of a change.
pub const POLICY_SETTLE_MS: u64 = 150;
/// From one activation to the next: a request that one has overtaken is judged again before the next can.
pub const POLICY_ACTIVATION_MS_MIN: u64 = 250;
/// Operators who wait for a reload at once.
pub const POLICY_ASKS_MAX: usize = 16;
/// What an operator is told of a bundle that was not activated.
pub const POLICY_FAULTS_SHOWN_BYTES_MAX: usize = 8 * 1024;
/// How long reading, checking and compiling one bundle may take.
pub const POLICY_LOAD_MAX_MS: u64 = 20_000;
/// Type check of policy: a larger object is known by the kinds of its members, not by their names.
pub const POLICY_TYPE_MEMBERS_MAX: usize = 256;
/// Schemas that are read of one route's; what is beyond may be anything.
pub const POLICY_TYPE_NODES_MAX: usize = 5_000;
pub const POLICY_TYPE_DEPTH_MAX: usize = 16;
/// Functions that call each other; what is beyond may be anything.
pub const POLICY_TYPE_CALLS_MAX: usize = 8;
/// Bodies that are read, one on each route; what is beyond is not examined.
pub const POLICY_TYPE_BODIES_MAX: usize = 500_000;

// Evaluation (policy::pdp).
/// Stack of an evaluation thread, bytes of address space.
pub const EVALUATION_STACK_BYTES: usize = 64 * 1024 * 1024;
pub const EVALUATION_MAX_MS_DEFAULT: u64 = 100;
/// Work units of the engine (statements, calls, loop turns) for one set of one evaluation.
pub const EVALUATION_STEPS_MAX_DEFAULT: u32 = 1_000_000;
/// Questions that wait for an evaluation thread.
pub const EVALUATION_QUEUE_MAX_DEFAULT: usize = 1_024;
pub const POLICY_REASONS_MAX: usize = 32;
pub const POLICY_REASON_CODE_BYTES_MAX: usize = 128;
/// All reasons of one verdict as they stand in the leaf.
pub const POLICY_REASONS_BYTES_MAX: usize = 16 * 1024;

/// A leaf holds the reasons beside what came in the head.
const _: () = assert!(POLICY_REASONS_BYTES_MAX + HEAD_BYTES_MAX < ENTRY_BYTES_MAX);
const _: () = assert!(POLICY_FILE_BYTES_MAX <= POLICY_BUNDLE_BYTES_MAX);

/// Request bodies held in memory at once.
pub const BODIES_BYTES_MAX: usize = 256 * 1024 * 1024;
/// How long a client may take to accept one piece of an answer.
pub const CLIENT_STALL_MS_MAX: u64 = 30_000;

/// How long the rest of an answer is read, for its outcome, after the client has left.
pub const ANSWER_WITHOUT_CLIENT_MS_MAX: u64 = 30_000;
const _: () = assert!(BODY_BYTES_MAX_HARD <= BODIES_BYTES_MAX);
const _: () = assert!(BODIES_BYTES_MAX <= u32::MAX as usize);

// Redaction (config, model::redaction, redaction).
/// Places that one surface keeps out of the log.
pub const REDACT_POINTERS_MAX: usize = 64;
pub const REDACT_POINTER_BYTES_MAX: usize = 1_024;
pub const REDACT_STEPS_MAX: usize = 32;
/// One disclosure as text: a whole policy input could be in it.
pub const DISCLOSURE_BYTES_MAX: usize = 2 * EVIDENCE_BYTES_MAX;
/// A reason's code is looked through for redacted values of at least this length; a shorter one may stand in any code.
pub const REDACTED_TEXT_BYTES_MIN: usize = 6;
// Evidence of bundles, and replay.
/// Whoever activates a bundle is named beside the list of its files.
const _: () = assert!(POLICY_FILE_LIST_BYTES_MAX + 4 * 1024 <= ENTRY_BYTES_MAX);
/// Any bundle that loads fits beside its leaf in a segment of the default size, and of half of that: one leaf may take half
/// of it, and the frame's own parts take less than a block. A record has 36 bytes of its own.
const _: () = assert!(
    (POLICY_BUNDLE_BYTES_MAX + POLICY_FILES_MAX * 36 + ENTRY_BYTES_MAX + 2 * FRAME_ALIGNMENT_BYTES) as u64
        <= SEGMENT_BYTES_DEFAULT / 4
);
const _: () = assert!(POLICY_BUNDLE_BYTES_MAX + POLICY_FILES_MAX * 36 <= EVIDENCE_BYTES_MAX);
const _: () = assert!(POLICY_FILE_BYTES_MAX <= EVIDENCE_BYTES_MAX);
/// Decisions of each kind that a replay's report names one by one; the rest are counted.
pub const REPLAY_NAMED_MAX: usize = 1_000;
/// Bundles a replay holds compiled at one time, the newest ones.
pub const REPLAY_BUNDLES_MAX: usize = 8;
/// Decisions handed to a thread of a replay at once.
pub const REPLAY_BATCH_DECISIONS_MAX: usize = 64;
/// A batch takes no more decisions once their inputs are this large.
pub const REPLAY_BATCH_BYTES_MAX: usize = 1024 * 1024;
pub const REPLAY_THREADS_MAX: usize = 256;
/// A request body's depth, and what stands around it in the policy input.
pub const REPLAY_INPUT_DEPTH_MAX: usize = JSON_DEPTH_MAX + 16;
/// A file of disclosures.
pub const DISCLOSURES_BYTES_MAX: u64 = 256 * 1024 * 1024;

// Facts (config, authority::facts).
/// Sources of one surface.
pub const FACTS_MAX: usize = 32;
/// Of the document, and of its RFC 8785 form.
pub const FACT_BYTES_MAX_DEFAULT: u64 = 64 * 1024;
pub const FACT_BYTES_MAX_HARD: u64 = 1024 * 1024;
/// The bounds of all facts of one surface together: every evaluation there gets all of them.
pub const FACTS_BYTES_MAX: u64 = 4 * 1024 * 1024;
pub const FACT_DEPTH_MAX: usize = 32;
/// Values and member names in one fact.
pub const FACT_VALUES_MAX: usize = 20_000;
pub const FACT_AGE_MS_MIN: u64 = 100;
pub const FACT_AGE_MS_MAX_DEFAULT: u64 = 60_000;
pub const FACT_AGE_MS_MAX_HARD: u64 = 24 * 60 * 60 * 1_000;
pub const FACT_TIMEOUT_MS_MIN: u64 = 10;
pub const FACT_TIMEOUT_MS_MAX_DEFAULT: u64 = 2_000;
pub const FACT_TIMEOUT_MS_MAX_HARD: u64 = 60_000;
/// A source is asked again when this fraction of its largest age has gone by, so that a read which takes all of its
/// time, and one that fails, come before the value is too old.
pub const FACT_REFRESH_PARTS: u32 = 2;
/// A file is looked at again at least this often.
pub const FACT_FILE_POLL_MS: u64 = 1_000;
/// After a failed read: this fraction of the largest age, within these bounds.
pub const FACT_RETRY_PARTS: u32 = 8;
pub const FACT_RETRY_MS_MIN: u64 = 50;
pub const FACT_RETRY_MS_MAX: u64 = 5_000;
const _: () =
    assert!(FACT_BYTES_MAX_DEFAULT <= FACT_BYTES_MAX_HARD && FACT_BYTES_MAX_HARD <= FACTS_BYTES_MAX);
const _: () = assert!(FACTS_BYTES_MAX * 2 <= EVIDENCE_BYTES_MAX as u64);
const _: () = assert!(FACT_DEPTH_MAX + 16 <= EVIDENCE_DEPTH_MAX && FACT_DEPTH_MAX <= JSON_DEPTH_MAX);
const _: () = assert!(FACT_TIMEOUT_MS_MAX_DEFAULT * FACT_REFRESH_PARTS as u64 <= FACT_AGE_MS_MAX_DEFAULT);
const _: () = assert!(FACT_RETRY_MS_MIN * FACT_REFRESH_PARTS as u64 <= FACT_AGE_MS_MIN);

// State that decisions change, as config declares it.
pub const IDEMPOTENCY_KEEP_HOURS_DEFAULT: u64 = 24;
pub const IDEMPOTENCY_KEEP_HOURS_MAX: u64 = 90 * 24;
pub const HOLD_EXPIRE_MINUTES_MAX: u64 = 7 * 24 * 60;
/// Budgets of one surface.
pub const BUDGETS_MAX: usize = 16;
pub const BUDGET_UNIT_BYTES_MAX: usize = 32;

// State (authority).
/// Idempotency keys that are claimed at one time. Each takes about 0.4 KB; see docs/PERFORMANCE.md.
pub const CLAIMS_MAX: usize = 5_000_000;
/// Budget keys that something is reserved or spent of.
pub const BUDGET_KEYS_MAX: usize = 250_000;
/// Holds that are open or refused.
pub const HOLDS_MAX: usize = 10_000;
/// People whose word on one hold is kept.
pub const APPROVALS_PER_HOLD_MAX: usize = 64;
/// The wall clock may have been set so far, either way, since the gateway started; past that nothing is decided.
pub const CLOCK_STEP_MS_MAX: u64 = 60 * 1_000;
/// Claims and what is spent stay in memory so long beyond their end, in case that the clock that ended them was ahead.
pub const ENDED_KEPT_MS: u64 = 10 * 60 * 1_000;
const _: () = assert!(ENDED_KEPT_MS > 2 * CLOCK_STEP_MS_MAX);
/// What has ended leaves the state when a later decision changes it: at most so many of each kind for each leaf. More
/// than one, so that it shrinks.
pub const ENDED_PER_CHANGE_MAX: usize = 8;
const _: () = assert!(ENDED_PER_CHANGE_MAX > 1);
const _: () = assert!(CLAIMS_MAX * 200 <= STATE_BYTES_MAX / 2);
/// Key pointers of one budget.
pub const BUDGET_KEY_POINTERS_MAX: usize = 8;
pub const BUDGET_POINTER_BYTES_MAX: usize = 1_024;
pub const BUDGET_POINTER_STEPS_MAX: usize = 32;
/// Digits after the point of an amount: one long fraction makes the sum of its window as long, and past 15 to 17 digits
/// policy could not be told the sum.
pub const BUDGET_FRACTION_DIGITS_MAX: u32 = 9;
/// A sliding window moves in so many steps: what was spent counts up to one step longer than the window.
pub const BUDGET_WINDOW_STEPS: u64 = 60;
/// Of a sliding window, seconds.
pub const BUDGET_WINDOW_SECONDS_MAX: u64 = 366 * 24 * 60 * 60;

// Status lookups (config, upstream::status, reconcile).
/// Path and query of the question, as declared.
pub const STATUS_TARGET_BYTES_MAX: usize = 1_024;
/// Of a pointer into an answer.
pub const STATUS_POINTER_BYTES_MAX: usize = 256;
/// Values that stand for one outcome, and bytes of each.
pub const STATUS_VALUES_MAX: usize = 32;
pub const STATUS_VALUE_BYTES_MAX: usize = 128;
/// Connecting, asking and the whole answer together.
pub const STATUS_TIMEOUT_MS_MIN: u64 = 10;
pub const STATUS_TIMEOUT_MS_DEFAULT: u64 = 5_000;
pub const STATUS_TIMEOUT_MS_MAX: u64 = 60_000;
/// Of one answer.
pub const STATUS_BYTES_DEFAULT: u64 = 64 * 1024;
pub const STATUS_BYTES_MAX: u64 = 1024 * 1024;
pub const STATUS_DEPTH_MAX: usize = 32;
/// Values and member names in one answer.
pub const STATUS_ANSWER_VALUES_MAX: usize = 20_000;
/// Before the first question about one outcome.
pub const STATUS_AFTER_MS_DEFAULT: u64 = 30_000;
pub const STATUS_AFTER_MS_MAX: u64 = 24 * 60 * 60 * 1_000;
/// From one question about an outcome to the next: at first the first, then twice as long each time, up to the ceiling.
pub const STATUS_AGAIN_MS_FIRST: u64 = 1_000;
pub const STATUS_AGAIN_MS_MIN: u64 = 100;
pub const STATUS_AGAIN_MS_DEFAULT: u64 = 10 * 60 * 1_000;
pub const STATUS_AGAIN_MS_MAX: u64 = 24 * 60 * 60 * 1_000;
/// How often a surface looks for what is to be asked, and how many questions it asks then, one after the other.
pub const STATUS_ROUND_MS: u64 = 250;
pub const STATUS_QUESTIONS_PER_ROUND_MAX: usize = 4;
/// Unknown outcomes that are looked at in one round; the next round goes on after them.
pub const STATUS_SLICE_MAX: usize = 256;
/// Unknown outcomes that one surface remembers: those that it asks about, and those that are not its own.
pub const STATUS_REMEMBERED_MAX: usize = 262_144;
/// Searches of the log for other requests with one key, before it counts as not to be told apart.
pub const STATUS_SEARCHES_MAX: usize = 64;
const _: () = assert!(STATUS_TIMEOUT_MS_MIN <= STATUS_TIMEOUT_MS_DEFAULT);
const _: () = assert!(STATUS_AGAIN_MS_MIN <= STATUS_AGAIN_MS_FIRST);
const _: () = assert!(STATUS_AGAIN_MS_FIRST <= STATUS_AGAIN_MS_DEFAULT);
const _: () = assert!(STATUS_DEPTH_MAX <= JSON_DEPTH_MAX);
/// With every byte of a key percent-encoded, it fits a head; and what a leaf says of an answer fits a block.
const _: () = assert!(STATUS_TARGET_BYTES_MAX + 3 * 255 < TARGET_BYTES_MAX);
const _: () = assert!(
    STATUS_TARGET_BYTES_MAX + STATUS_POINTER_BYTES_MAX + STATUS_VALUE_BYTES_MAX + 1_024
        < FRAME_ALIGNMENT_BYTES
);
