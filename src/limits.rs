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
/// After the disk was found full, how long before room is looked for again.
pub const ROOM_RETRY_MS: u64 = 250;
/// The `checkpoint` file is rewritten at most once in this time, except at close.
pub const PUBLISH_INTERVAL_MS: u64 = 10;
/// Refusal leaves an actor may cause at once, and then one a second.
pub const REJECTIONS_BURST: u32 = 16;
pub const REJECTION_REFILL_MS: u64 = 1_000;
/// Actors whose refusals are counted at one time.
pub const REJECTION_ACTORS_MAX: usize = 4_096;
/// Problems a verification report names one by one; the rest are counted.
pub const PROBLEMS_NAMED_MAX: usize = 100;

// Requests in flight (pep, ledger).
pub const PERMITS_IN_FLIGHT_MAX: usize = 8_192;

/// Upstream connections of one surface.
pub const LEASES_MAX_HARD: usize = 4_096;

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
