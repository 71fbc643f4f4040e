//! The body of a response: whole, or streamed from the task that reads the upstream's answer.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

use crate::limits;

/// The upstream's answer ended before it was whole; the caller's connection ends with it.
#[derive(Debug, thiserror::Error)]
#[error("the upstream's answer was cut")]
pub struct AnswerCut;

/// What the streaming task sends. A stream that stops without `End` (an error, a panic, an abort) is a cut.
#[derive(Debug)]
pub enum Piece {
    Frame(Frame<Bytes>),
    End,
}

#[derive(Debug)]
pub struct ResponseBody(Kind);

#[derive(Debug)]
enum Kind {
    Whole(Option<Bytes>),
    Streamed { pieces: mpsc::Receiver<Piece>, left: Option<u64>, is_done: bool },
}

impl ResponseBody {
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        Self(Kind::Whole(Some(bytes.into()).filter(|bytes: &Bytes| !bytes.is_empty())))
    }

    /// Of unknown length; each piece is made only when the one before it is on its way.
    pub fn pulled() -> (Self, mpsc::Sender<Piece>) {
        let (sender, pieces) = mpsc::channel(1);
        (Self(Kind::Streamed { pieces, left: None, is_done: false }), sender)
    }

    /// `announced` is the length the upstream announced, bytes.
    pub fn streamed(announced: Option<u64>) -> (Self, mpsc::Sender<Piece>) {
        let (sender, pieces) = mpsc::channel(limits::RESPONSE_PIECES_MAX);
        (Self(Kind::Streamed { pieces, left: announced, is_done: false }), sender)
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = AnswerCut;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, AnswerCut>>> {
        match &mut self.get_mut().0 {
            Kind::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Kind::Streamed { is_done: true, .. } => Poll::Ready(None),
            Kind::Streamed { pieces, left, is_done } => match ready!(pieces.poll_recv(cx)) {
                Some(Piece::Frame(frame)) => {
                    if let Some(left) = left {
                        *left = left.saturating_sub(frame.data_ref().map_or(0, |data| data.len() as u64));
                    }
                    Poll::Ready(Some(Ok(frame)))
                }
                Some(Piece::End) => {
                    *is_done = true;
                    Poll::Ready(None)
                }
                None => {
                    *is_done = true;
                    Poll::Ready(Some(Err(AnswerCut)))
                }
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Whole(bytes) => bytes.is_none(),
            Kind::Streamed { left, is_done, .. } => *is_done || *left == Some(0),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Kind::Streamed { left, .. } => left.map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    #[tokio::test]
    async fn a_stream_without_its_end_is_an_error_not_a_short_answer() {
        for with_end in [true, false] {
            let (body, pieces) = ResponseBody::streamed(None);
            pieces.send(Piece::Frame(Frame::data("a".into()))).await.expect("open");
            if with_end {
                pieces.send(Piece::End).await.expect("open");
            }
            drop(pieces);
            assert_eq!(body.collect().await.is_ok(), with_end);
        }
    }
}
