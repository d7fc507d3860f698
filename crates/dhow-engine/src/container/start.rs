//! Starting a container: a monitor is spawned, and says whether it worked.

use super::Created;
use crate::live::Live;
use crate::paths::SOCKET;
use crate::{Engine, EngineError};
use dhow_monitor::{Client, Frame, Hello};
use dhow_types::{ContainerId, ContainerSpec};
use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// What a client wants of a container's streams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AttachRequest {
    /// Give input.
    pub stdin: bool,
    /// Take standard output.
    pub stdout: bool,
    /// Take standard error.
    pub stderr: bool,
    /// Rows and columns of the client's terminal.
    pub console_size: Option<(u16, u16)>,
}

impl Engine {
    /// Creates and starts a container. With `attach` the connection sees the container's first byte.
    pub fn run(
        &self,
        spec: &ContainerSpec,
        attach: Option<AttachRequest>,
        created: &mut dyn FnMut(&Created) -> Result<(), EngineError>,
    ) -> Result<(Created, Option<Client>), EngineError> {
        let (container, live) = self.create_live(spec)?;
        if let Err(e) = created(&container) {
            live.release()?;
            self.remove(&container.id, super::RemoveOptions { force: true, volumes: true })?;
            return Err(e);
        }
        let client = self.spawn_monitor(&container.id, live, attach.unwrap_or_default())?;
        Ok((container, attach.map(|_| client)))
    }

    /// Starts a created or exited container. Returns when it runs; with `attach` the connection sees its first byte.
    ///
    /// # Errors
    /// [`EngineError::Unchanged`] when it runs already, [`EngineError::StartFailed`] when its command cannot be run.
    pub fn start(&self, id: &ContainerId, attach: Option<AttachRequest>) -> Result<Option<Client>, EngineError> {
        if self.container(id)?.is_alive() {
            return Err(EngineError::Unchanged(format!("container {} is already running", id.short())));
        }
        let live = self.wait_live(id)?;
        if self.container(id)?.is_alive() {
            return Err(EngineError::Unchanged(format!("container {} is already running", id.short())));
        }
        let client = self.spawn_monitor(id, live, attach.unwrap_or_default())?;
        Ok(attach.map(|_| client))
    }

    /// Connects to a running container.
    pub fn attach(&self, id: &ContainerId, request: AttachRequest) -> Result<Client, EngineError> {
        let mut client = self.connect(id)?;
        client.send(&Frame::Hello(Hello { stdin: request.stdin, stdout: request.stdout, stderr: request.stderr }))?;
        if let Some((rows, cols)) = request.console_size {
            client.send(&Frame::Resize { rows, cols })?;
        }
        match client.recv()? {
            Some(Frame::Started { .. }) => Ok(client),
            _ => Err(not_running(id)),
        }
    }

    /// A connection to the container's monitor.
    pub(super) fn connect(&self, id: &ContainerId) -> Result<Client, EngineError> {
        let dir = self.paths.runtime(id);
        let opened = File::open(&dir).map_err(|_| not_running(id))?;
        Client::connect(opened.as_fd(), SOCKET, &dir.join(SOCKET)).map_err(|_| not_running(id))
    }

    fn spawn_monitor(&self, id: &ContainerId, live: Live, attach: AttachRequest) -> Result<Client, EngineError> {
        let spawn = Path::new("the container's monitor");
        let (ours, theirs) = UnixStream::pair().map_err(EngineError::state("connect to", spawn))?;
        let mut client = Client::from_fd(OwnedFd::from(ours));
        // Written before the monitor exists, so it finds both frames there before it launches anything.
        client.send(&Frame::Hello(Hello { stdin: attach.stdin, stdout: attach.stdout, stderr: attach.stderr }))?;
        let (rows, cols) = attach.console_size.unwrap_or((0, 0));
        client.send(&Frame::Resize { rows, cols })?;
        let text = |bytes: &[u8]| {
            CString::new(bytes).map_err(|_| EngineError::Invalid("a root path contains a NUL byte".to_owned()))
        };
        let argv = [
            text(b"dhow")?,
            text(b"monitor")?,
            text(self.paths.root().as_os_str().as_bytes())?,
            text(self.paths.run().as_os_str().as_bytes())?,
            text(id.as_str().as_bytes())?,
        ];
        let argv: Vec<&std::ffi::CStr> = argv.iter().map(CString::as_c_str).collect();
        dhow_sys::process::spawn_sealed(&argv, &[theirs.as_fd(), live.file().as_fd()])
            .map_err(EngineError::state("start", spawn))?;
        drop(theirs);
        // The lock lives on in the monitor.
        drop(live);
        match client.recv()? {
            Some(Frame::Started { .. }) => Ok(client),
            Some(Frame::Failed { code, message }) => Err(EngineError::StartFailed { code, message }),
            _ => {
                self.heal_container(id)?;
                Err(EngineError::MonitorDied(id.short().to_owned()))
            }
        }
    }
}

pub(super) fn not_running(id: &ContainerId) -> EngineError {
    EngineError::WrongState {
        message: format!("container {id} is not running"),
        hint: Some("start it with `dhow start`"),
    }
}
