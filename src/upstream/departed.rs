//! What has really left, below TLS.
//!
//! A TLS stream can put part of a write on the wire, fail on the rest, and return only the error. Then the number of
//! bytes it took is zero and the number of bytes that left is not. [`Counted`] sits between TLS and the socket and
//! knows the second number; [`SealedIo`](super::sealed_io::SealedIo) asks it whenever a write fails.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that the socket has taken so far, TLS records included.
#[derive(Clone, Default)]
pub(super) struct Departed(Arc<AtomicU64>);

impl Departed {
    pub(super) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    fn add(&self, result: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(n)) = result {
            self.0.fetch_add(*n as u64, Ordering::AcqRel);
        }
    }
}

pub(super) struct Counted<T> {
    io: T,
    departed: Departed,
}

impl<T> Counted<T> {
    pub(super) fn new(io: T) -> (Self, Departed) {
        let departed = Departed::default();
        (Self { io, departed: departed.clone() }, departed)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Counted<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.io).poll_write(cx, buf);
        this.departed.add(&result);
        result
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.io).poll_write_vectored(cx, bufs);
        this.departed.add(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Counted<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_read(cx, buf)
    }
}

#[cfg(test)]
mod tests {
    use super::super::conditions::Conditions;
    use super::super::sealed_io::{SealedIo, SealedMessage};
    use super::*;
    use crate::authority::Versions;
    use bytes::Bytes;
    use rustls_pki_types::{PrivateKeyDer, ServerName};
    use std::sync::atomic::AtomicUsize;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
    use tokio_rustls::{TlsAcceptor, TlsConnector};
    use zeroize::Zeroizing;

    /// Takes so many more bytes, then every write fails.
    struct Breaking {
        io: DuplexStream,
        left: Arc<AtomicUsize>,
    }

    impl AsyncWrite for Breaking {
        fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            let this = self.get_mut();
            let left = this.left.load(Ordering::SeqCst);
            if left == 0 {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            let result = Pin::new(&mut this.io).poll_write(cx, &buf[..buf.len().min(left)]);
            if let Poll::Ready(Ok(n)) = result {
                this.left.fetch_sub(n, Ordering::SeqCst);
            }
            result
        }

        fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.get_mut().io).poll_flush(cx)
        }

        fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
        }
    }

    impl AsyncRead for Breaking {
        fn poll_read(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.get_mut().io).poll_read(cx, buf)
        }
    }

    /// How many bytes of a large message count as sent over TLS if the socket breaks after `taken` of them.
    async fn revoked_after(taken: usize) -> usize {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let provider = || Arc::new(rustls::crypto::ring::default_provider());
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let server = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .expect("a pair");
        let mut roots = rustls::RootCertStore::empty();
        roots.add(made.cert.der().clone()).expect("a root");
        let client = rustls::ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let (near, far) = tokio::io::duplex(1 << 20);
        let accepting = tokio::spawn(async move {
            // The peer sees an end without a goodbye, maybe while it still answers the handshake.
            if let Ok(mut tls) = TlsAcceptor::from(Arc::new(server)).accept(far).await {
                let _ = tls.read_to_end(&mut Vec::new()).await;
            }
        });
        let left = Arc::new(AtomicUsize::new(usize::MAX));
        let (io, departed) = Counted::new(Breaking { io: near, left: left.clone() });
        let name = ServerName::try_from("localhost").expect("a name");
        let tls = TlsConnector::from(Arc::new(client)).connect(name, io).await.expect("connected");
        left.store(taken, Ordering::SeqCst);
        let (mut io, seal) = SealedIo::new(tls, departed);
        let body = Bytes::from(vec![b'x'; 60_000]);
        let conditions = Conditions::while_unset(&Versions::new(), "freezes");
        seal.arm(SealedMessage::new(Zeroizing::new(b"head".to_vec()), body.clone(), conditions));
        let whole = [&b"head"[..], &body].concat();
        io.write_all(&whole).await.expect_err("the socket breaks");
        let sent = seal.revoke();
        drop(io);
        accepting.await.expect("the peer ends");
        sent
    }

    #[tokio::test]
    async fn a_write_that_fails_halfway_through_tls_has_sent_something() {
        assert_ne!(revoked_after(20_000).await, 0, "a record and more has left");
        assert_eq!(revoked_after(0).await, 0, "nothing has left, and that is known");
    }
}
