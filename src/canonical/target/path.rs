//! Paths. A segment is decoded once and written again in its one form: the characters of RFC 3986's
//! `pchar` stand as they are but for `+`, which some servers read as a space; all others are `%XX`.

use super::refuse;
use crate::canonical::Malformed;
use crate::canonical::percent::{self, Plus, Undecodable};
use crate::limits;
use crate::model::ReasonCode;

/// Offsets into the target of the first use of what a route must allow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::canonical) struct FirstUses {
    pub parameter: Option<usize>,
    pub non_ascii: Option<usize>,
    pub encoded_slash: Option<usize>,
    pub empty_segment: Option<usize>,
}

pub(super) struct Path {
    pub text: String,
    pub used: FirstUses,
}

/// `at` is the path's offset in the target.
pub(super) fn read(raw: &str, at: usize) -> Result<Path, Malformed> {
    let mut path = Path { text: String::with_capacity(raw.len()), used: FirstUses::default() };
    // An absolute-form target may have no path at all; that is `/` (RFC 9112 section 3.2.1).
    let segments = raw.strip_prefix('/').unwrap_or(raw);
    let mut start = at + raw.len() - segments.len();
    for (count, segment) in segments.split('/').enumerate() {
        if count == limits::PATH_SEGMENTS_MAX {
            return Err(refuse(ReasonCode::TargetTooLong, start).because("There are too many path segments."));
        }
        path.text.push('/');
        read_segment(segment, start, &mut path.text, &mut path.used)?;
        let end = start + segment.len();
        let is_last = end == at + raw.len();
        if segment.is_empty() && !is_last {
            path.used.empty_segment.get_or_insert(start);
        }
        start = end + 1;
    }
    Ok(path)
}

/// Appends the one form of a segment that begins at `at`.
pub(in crate::canonical) fn read_segment(
    raw: &str,
    at: usize,
    out: &mut String,
    used: &mut FirstUses,
) -> Result<(), Malformed> {
    if let Some(offset) = raw.bytes().position(|b| b != b'%' && !is_path_character(b)) {
        let code = match raw.as_bytes()[offset] {
            b'\\' => ReasonCode::TargetBackslash,
            _ => ReasonCode::TargetCharacterInvalid,
        };
        return Err(refuse(code, at + offset));
    }
    let decoded = percent::decode(raw, Plus::Plus).map_err(|why| match why {
        Undecodable::Triplet(offset) => refuse(ReasonCode::TargetPercentInvalid, at + offset),
        Undecodable::NotUtf8(offset) => refuse(ReasonCode::TargetNotUtf8, at + offset),
    })?;
    let place = |offset: usize| at + percent::raw_offset(raw, offset);
    // Some servers drop `;` and what follows before they look for dots, and some decode `%2F` before that.
    let is_dots = |part: &str| matches!(part.split(';').next(), Some("." | ".."));
    if decoded.split('/').any(is_dots) {
        return Err(refuse(ReasonCode::TargetDotSegment, at));
    }
    if let Some((offset, culprit)) = decoded.char_indices().find(|(_, c)| c.is_control() || *c == '\\') {
        let code = match culprit {
            '\\' => ReasonCode::TargetBackslash,
            _ => ReasonCode::TargetEncodedControl,
        };
        return Err(refuse(code, place(offset)));
    }
    let note = |first: &mut Option<usize>, found: Option<usize>| *first = first.or(found.map(place));
    note(&mut used.parameter, decoded.find(';'));
    note(&mut used.encoded_slash, decoded.find('/'));
    note(&mut used.non_ascii, decoded.find(|c: char| !c.is_ascii()));
    percent::encode(&decoded, |b| is_path_character(b) && b != b'+', out);
    Ok(())
}

/// RFC 3986 section 3.3, `pchar` without the percent sign.
pub(super) fn is_path_character(byte: u8) -> bool {
    percent::is_unreserved(byte)
        || matches!(
            byte,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b':' | b'@'
        )
}
