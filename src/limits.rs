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
/// Leaves in one group commit.
pub const FRAME_ENTRIES_MAX: usize = 4_096;

// Requests in flight (pep, ledger).
pub const PERMITS_IN_FLIGHT_MAX: usize = 8_192;

/// Upstream connections of one surface.
pub const LEASES_MAX_HARD: usize = 4_096;

/// When the log is full, every open permit must still find room for its outcome, alone in its own frame.
const _: () = assert!(PERMITS_IN_FLIGHT_MAX as u64 * FRAME_ALIGNMENT_BYTES as u64 <= SEGMENT_BYTES_DEFAULT);
const _: () = assert!(TARGET_BYTES_MAX < HEAD_BYTES_MAX);
const _: () = assert!(HEAD_BYTES_MAX < ENTRY_BYTES_MAX);
const _: () = assert!(BODY_BYTES_MAX_DEFAULT <= BODY_BYTES_MAX_HARD);

// Policy bundles (policy::source, policy::check).
/// Rego and data files in one bundle, tests included.
pub const POLICY_FILES_MAX: usize = 512;
pub const POLICY_FILE_BYTES_MAX: usize = 1024 * 1024;
pub const POLICY_BUNDLE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Values and member names in one data document.
pub const POLICY_DATA_VALUES_MAX: usize = 200_000;
/// Bytes of one line of Rego; the engine's own bound is 1,024 columns.
pub const POLICY_LINE_BYTES_MAX: usize = 1_000;
/// Open `[` and `{` at one place of Rego: the engine's parse time doubles with each literal level.
pub const POLICY_NESTING_MAX: usize = 10;
/// Open `(` at one place of Rego.
pub const POLICY_PARENTHESES_MAX: usize = 24;
pub const POLICY_DIRECTORY_DEPTH_MAX: usize = 16;
/// Rules that may stand on each other: a longer chain is stack.
pub const POLICY_RULE_CHAIN_MAX: usize = 64;
/// How long reading, checking and compiling one bundle may take.
pub const POLICY_LOAD_MAX_MS: u64 = 20_000;

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
