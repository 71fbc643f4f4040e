//! Opens the admin listener: TCP, TLS over it, or a Unix socket that is its owner's alone.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use tokio::net::{UnixListener, UnixSocket, UnixStream};

use super::{StartError, listen};
use crate::admin::Socket;
use crate::config::{AdminConfig, AdminListen};
use crate::limits;

/// The socket, and where it really is: config may say port 0.
pub(super) async fn open(config: &AdminConfig) -> Result<(AdminListen, Socket), StartError> {
    match &config.listen {
        AdminListen::Tcp(address) => {
            let (address, socket) = listen(*address).await?;
            let socket = match &config.tls {
                Some(tls) => Socket::Tls(socket, tls.clone()),
                None => Socket::Tcp(socket),
            };
            Ok((AdminListen::Tcp(address), socket))
        }
        AdminListen::Unix(path) => {
            let failed = |source| StartError::ListenUnix { path: path.clone(), source };
            clear(path).await.map_err(failed)?;
            let socket = bind(path).map_err(failed)?;
            Ok((AdminListen::Unix(path.clone()), Socket::Unix(socket)))
        }
    }
}

/// Takes away what a gateway that has ended left behind, and nothing else.
async fn clear(path: &Path) -> io::Result<()> {
    let found = match std::fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !found.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is something that is no socket"));
    }
    match UnixStream::connect(path).await {
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "somebody listens there")),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Err(error) => Err(error),
    }
}

/// Nobody can connect before the mode is set: a socket that does not listen yet refuses.
fn bind(path: &Path) -> io::Result<UnixListener> {
    let socket = UnixSocket::new_stream()?;
    socket.bind(path)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
    socket.listen(limits::ADMIN_BACKLOG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_is_its_owners_alone_and_replaces_only_what_is_dead() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("admin.sock");
        clear(&path).await.expect("nothing is there");
        let listening = bind(&path).expect("bound");
        let mode = std::fs::symlink_metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let in_use = clear(&path).await.expect_err("somebody listens");
        assert_eq!(in_use.kind(), io::ErrorKind::AddrInUse);
        drop(listening);
        clear(&path).await.expect("nobody listens");
        bind(&path).expect("bound again");
        let file = dir.path().join("file");
        std::os::unix::fs::symlink(&path, &file).expect("a link");
        let no_socket = clear(&file).await.expect_err("a link is not followed");
        assert_eq!(no_socket.kind(), io::ErrorKind::AlreadyExists);
    }
}
