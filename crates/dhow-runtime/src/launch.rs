//! Starting a container.
//!
//! Two processes work at once. The caller makes the new process in all its namespaces with one clone3(2), attaches the
//! network from outside while the new process mounts its root, and lets it go on. Everything that can be checked is
//! checked before there is a process.

use crate::cgroup::Cgroup;
use crate::channel::Channel;
use crate::confine::{self, Confinement, Init};
use crate::error::{Failure, LaunchError, OrFail, Stage};
use crate::maker::{self, Maker};
use crate::namespaces::Plan;
use crate::procfs::{self, Sysctls};
use crate::request::{LaunchRequest, Launched, Rootfs};
use crate::rootfs::{self, Root};
use crate::stdio::{self, Theirs};
use crate::workdir;
use dhow_oci::runtime::{NamespaceKind, Spec};
use dhow_sys::mount;
use dhow_sys::tty::Pty;
use std::convert::Infallible;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Starts a container. Returns when its program runs; on an error nothing is left of the process.
pub fn launch(request: LaunchRequest<'_>) -> Result<Launched, LaunchError> {
    let LaunchRequest { spec, rootfs, user, group_add, seccomp, cgroup, stdio, init, attach, inside } = request;
    maker::check_caller()?;
    let namespaces = Plan::new(&spec.linux.namespaces)?;
    let sysctls = Sysctls::new(&spec.linux.sysctl, &namespaces)?;
    let confinement = Confinement::new(&spec.process, user, group_add, seccomp)?;
    let init = if init { Init::BuiltIn } else { Init::None };
    let (ours, theirs) = stdio::prepare(stdio)?;
    let inner = Inner { spec, rootfs, namespaces: &namespaces, sysctls, confinement, cgroup, inside, init };
    let maker =
        Maker::make(&namespaces.clone_plan(), cgroup.v2_dir(), |channel| inner.become_container(theirs, channel))?;
    // While the process mounts its root: its network namespace is there from its first moment.
    maker.accompany(ours, attach)
}

/// The new process's side.
struct Inner<'a> {
    spec: &'a Spec,
    rootfs: Rootfs<'a>,
    namespaces: &'a Plan,
    sysctls: Sysctls,
    confinement: Confinement<'a>,
    cgroup: &'a Cgroup,
    inside: Option<&'a dyn Fn() -> Result<(), String>>,
    init: Init,
}

impl Inner<'_> {
    /// The steps, in their order.
    fn become_container(self, stdio: Theirs, channel: &mut Channel) -> Result<Infallible, Failure> {
        confine::withdraw()?;
        if self.init == Init::BuiltIn {
            // With the host's `/proc`, the one to be trusted.
            confine::forget_arguments()?;
        }
        // Before mounts: what is mounted belongs to the namespaces it is mounted in.
        self.namespaces.enter_existing()?;
        // Before the cgroup namespace, whose root is where we are then, and before anything is charged to the caller.
        join_cgroups(self.cgroup)?;
        self.namespaces.make_cgroup_namespace()?;
        self.name_host()?;
        let mut root = Root::build(self.spec, &self.rootfs)?;
        // The terminal is of the root's devpts instance.
        let stdio = stdio.complete(channel, || rootfs::open_null(root.fd()), || open_pty(&root))?;
        // Before the root may become read-only.
        workdir::make(root.fd(), &self.spec.process.cwd)?;
        // As late as possible, since the caller works meanwhile.
        self.wait_for_network(channel)?;
        // After it: parameters of interfaces need the interfaces.
        self.sysctls.apply(|| root.procfs())?;
        procfs::configure_self(&self.spec.process, || root.procfs())?;
        root.enter(self.spec)?;
        // From here no descriptor of the host is left, so nothing that the image says can lead to one.
        drop(root);
        channel.keep_only(stdio.fds)?;
        self.confinement.become_program(stdio.kind, channel, self.init)
    }

    /// Host and domain name, where the container has an own one.
    fn name_host(&self) -> Result<(), Failure> {
        if !self.namespaces.is_new(NamespaceKind::Uts) {
            return Ok(());
        }
        let Spec { hostname, domainname, .. } = self.spec;
        if !hostname.is_empty() {
            rustix::system::sethostname(hostname.as_bytes())
                .or_fail(Stage::Namespaces, || format!("cannot set the host name {hostname:?}"))?;
        }
        if !domainname.is_empty() {
            rustix::system::setdomainname(domainname.as_bytes())
                .or_fail(Stage::Namespaces, || format!("cannot set the domain name {domainname:?}"))?;
        }
        Ok(())
    }

    /// Waits until the caller has attached the network, then configures it from inside.
    fn wait_for_network(&self, channel: &Channel) -> Result<(), Failure> {
        maker::wait_for_go(channel)?;
        match self.inside {
            Some(inside) => inside().map_err(|what| Failure::new(Stage::Network, what)),
            None => Ok(()),
        }
    }
}

/// Joins the cgroups from inside: a write of another process's id would wait for the kernel some ten milliseconds.
pub(crate) fn join_cgroups(cgroup: &Cgroup) -> Result<(), Failure> {
    cgroup.join_self().map_err(|e| Failure::new(Stage::Cgroup, dhow_types::report(&e)))
}

/// A terminal of the container's own devpts instance, or of the host's when it has none.
fn open_pty(root: &Root) -> Result<Pty, Failure> {
    let what = || "cannot make a terminal";
    let host: OwnedFd;
    let devpts = match root.devpts() {
        Some(devpts) => devpts,
        None => {
            host = mount::open_place(Path::new("/dev/pts")).or_fail(Stage::Stdio, what)?;
            host.as_fd()
        }
    };
    let pty = Pty::open(devpts).or_fail(Stage::Stdio, what)?;
    rootfs::add_console(root.fd(), devpts, &pty)?;
    Ok(pty)
}
