//! A container's root file system, as its first process makes it inside its own mount namespace.
//!
//! Nothing of the image is trusted. Every place is opened below the root by descriptor and every mount is put onto such
//! a descriptor, so a symbolic link can lead a mount to another place *inside* at most, and never for the kernel's own
//! file systems: `/proc`, `/sys`, `/dev` and what belongs below them are refused when any component is a link.
//!
//! Order, and why:
//! 1. Sources of bind mounts are cloned while host mounts still have their peers, so that `rshared` and `rslave` mean the
//!    host's mounts.
//! 2. Every mount becomes private: nothing from here on is seen outside.
//! 3. The file system of the masks is mounted where the root will cover it.
//! 4. The root, then the specification's mounts in their order, device nodes, read-only and hidden paths.
//! 5. [`Root::enter`] makes it `/` and drops the host's tree.

mod bind;
mod cgroups;
mod dev;
mod masks;
mod options;

use crate::error::{Failure, OrFail, Stage};
use crate::overlay::Overlay;
use crate::request::Rootfs;
use dhow_oci::runtime::{Mount, Spec};
use dhow_sys::fs as paths;
use dhow_sys::mount::{self, Attributes, Filesystem, Propagation};
use options::Options;
use rustix::fs::{Mode, OFlags};
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

pub(crate) use dev::add_console;
pub(crate) use masks::open_null;

/// Mode of directories that are made for mounts.
const DIR_MODE: Mode = Mode::from_raw_mode(0o755);

/// A root in the making.
#[derive(Debug)]
pub(crate) struct Root {
    /// The root directory.
    fd: OwnedFd,
    masks: Option<masks::Store>,
    /// The container's devpts instance.
    devpts: Option<OwnedFd>,
    /// A detached clone of the container's `/proc`, without anything that is mounted over parts of it.
    procfs: Option<OwnedFd>,
    /// The tmpfs on `/dev`, if the specification asks for one.
    dev: Option<OwnedFd>,
}

impl Root {
    /// Makes everything but the terminal. Called in a new mount namespace, after the cgroup namespace was made.
    pub(crate) fn build(spec: &Spec, rootfs: &Rootfs<'_>) -> Result<Self, Failure> {
        let mounts = spec.mounts.iter().map(Planned::new).collect::<Result<Vec<_>, _>>()?;
        let sources = mounts.iter().map(Planned::open_source).collect::<Result<Vec<_>, _>>()?;
        mount::set_propagation_of_all(Propagation::Private)
            .or_fail(Stage::Root, || "cannot make the mounts private")?;
        let mut root = Self::mount(rootfs, !spec.linux.masked_paths.is_empty())?;
        for (planned, source) in mounts.iter().zip(sources) {
            root.add(planned, source)?;
        }
        root.make_devices(&spec.linux.devices, &mounts)?;
        root.make_read_only(&spec.linux.readonly_paths)?;
        root.hide(&spec.linux.masked_paths)?;
        Ok(root)
    }

    /// Mounts the root directory itself.
    fn mount(rootfs: &Rootfs<'_>, with_masks: bool) -> Result<Self, Failure> {
        let masks = match with_masks {
            true => Some(masks::Store::new()?),
            false => None,
        };
        let fd = mount_root(rootfs, |place| match &masks {
            Some(masks) => masks.attach(place),
            None => Ok(()),
        })?;
        Ok(Self { fd, masks, devpts: None, procfs: None, dev: None })
    }

    /// The root directory.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The container's devpts instance.
    pub(crate) fn devpts(&self) -> Option<BorrowedFd<'_>> {
        self.devpts.as_ref().map(AsFd::as_fd)
    }

    /// A `/proc` of the container's PID namespace that nothing in the container can cover or redirect.
    pub(crate) fn procfs(&mut self) -> Result<BorrowedFd<'_>, Failure> {
        if self.procfs.is_none() {
            let procfs = Filesystem::open(c"proc").and_then(|fs| fs.mount(Attributes::NONE));
            self.procfs = Some(procfs.or_fail(Stage::Mount, || "cannot mount a private /proc")?);
        }
        match &self.procfs {
            Some(fd) => Ok(fd.as_fd()),
            None => Err(Failure::new(Stage::Mount, "no /proc")),
        }
    }

    fn add(&mut self, planned: &Planned<'_>, source: Option<OwnedFd>) -> Result<(), Failure> {
        let what = || format!("cannot mount {:?} to {:?}", planned.mount.kind, planned.target);
        if let Some(source) = source {
            return bind::attach(self.fd.as_fd(), source, planned);
        }
        let target = planned.open_target_dir(self.fd.as_fd())?;
        if planned.mount.kind == "cgroup" || planned.mount.kind == "cgroup2" {
            return cgroups::mount(target.as_fd(), &planned.options);
        }
        let kind = CString::new(planned.mount.kind.as_str())
            .map_err(|_| Failure::new(Stage::Mount, "a file system type with a NUL"))?;
        let filesystem = Filesystem::open(&kind).or_fail(Stage::Mount, what)?;
        if !planned.mount.source.is_empty() {
            filesystem.set("source", &planned.mount.source).or_fail(Stage::Mount, what)?;
        }
        for (key, value) in &planned.options.data {
            match value {
                Some(value) => filesystem.set(key, value),
                None => filesystem.flag(key),
            }
            .or_fail(Stage::Mount, what)?;
        }
        let mounted = filesystem.mount(planned.options.attributes()).or_fail(Stage::Mount, what)?;
        mount::attach(mounted.as_fd(), target.as_fd()).or_fail(Stage::Mount, what)?;
        planned.options.apply_propagation(mounted.as_fd()).or_fail(Stage::Mount, what)?;
        match (planned.mount.kind.as_str(), planned.target.to_str()) {
            ("devpts", _) => self.devpts = Some(mounted),
            ("proc", Some("/proc")) => {
                let clone = mount::clone_tree(mounted.as_fd(), false);
                self.procfs = Some(clone.or_fail(Stage::Mount, || "cannot clone /proc")?);
            }
            ("tmpfs", Some("/dev")) => self.dev = Some(mounted),
            _ => {}
        }
        Ok(())
    }

    /// Makes this the root of the mount namespace. The descriptors in here stay usable.
    pub(crate) fn enter(&self, spec: &Spec) -> Result<(), Failure> {
        mount::pivot(self.fd.as_fd()).or_fail(Stage::Root, || "cannot change the root")?;
        if spec.root.readonly {
            mount::set_attributes(self.fd.as_fd(), Attributes::READ_ONLY, false)
                .or_fail(Stage::Root, || "cannot make the root read-only")?;
        }
        match spec.linux.rootfs_propagation.as_str() {
            // Everything in the namespace is private already.
            "" | "private" | "rprivate" => Ok(()),
            name => {
                let (propagation, recursive) = options::propagation(name)
                    .ok_or_else(|| Failure::new(Stage::Specification, format!("unknown root propagation {name:?}")))?;
                mount::set_propagation(self.fd.as_fd(), propagation, recursive)
                    .or_fail(Stage::Root, || format!("cannot make the root {name}"))
            }
        }
    }
}

/// Mounts a root over its own place and returns its directory. `before_cover` gets that place before it is covered, for
/// what is to vanish together with the host's tree.
pub(crate) fn mount_root(
    rootfs: &Rootfs<'_>,
    before_cover: impl FnOnce(BorrowedFd<'_>) -> Result<(), Failure>,
) -> Result<OwnedFd, Failure> {
    match *rootfs {
        // The kernel has no overlay without a lower directory; what it would show is the upper one.
        Rootfs::Overlay { lower: [], upper, .. } => mount_root(&Rootfs::Directory(upper), before_cover),
        Rootfs::Overlay { lower, upper, work, volatile } => {
            let what = || "cannot mount the overlay";
            let overlay = Overlay { lower, upper, work, volatile }.open().or_fail(Stage::Root, what)?;
            before_cover(overlay.upper())?;
            overlay.mount().or_fail(Stage::Root, what)
        }
        Rootfs::Directory(path) => {
            let what = || format!("cannot use {} as root", path.display());
            let tree = mount::clone_tree_at(rustix::fs::CWD, path, true).or_fail(Stage::Root, what)?;
            mount::set_propagation(tree.as_fd(), Propagation::Private, true).or_fail(Stage::Root, what)?;
            let place = mount::open_place(path).or_fail(Stage::Root, what)?;
            before_cover(place.as_fd())?;
            mount::attach(tree.as_fd(), place.as_fd()).or_fail(Stage::Root, what)?;
            Ok(tree)
        }
    }
}

/// A mount of the specification, read.
#[derive(Debug)]
struct Planned<'a> {
    mount: &'a Mount,
    /// Cleaned: absolute, without `..`.
    target: PathBuf,
    options: Options,
}

impl<'a> Planned<'a> {
    fn new(mount: &'a Mount) -> Result<Self, Failure> {
        let wrong = |what: &str| Failure::new(Stage::Specification, format!("mount {:?}: {what}", mount.destination));
        if mount.destination.contains('\0') || mount.source.contains('\0') {
            return Err(wrong("a path with a NUL"));
        }
        let target = paths::clean_absolute(&mount.destination);
        if target == Path::new("/") {
            return Err(wrong("the root cannot be mounted over"));
        }
        let mut options = Options::parse(&mount.options).map_err(|e| wrong(&e))?;
        if options.bind.is_none() && mount.kind == "bind" {
            options.bind = Some(false);
        }
        if options.bind.is_none() && mount.kind.is_empty() {
            return Err(wrong("no type"));
        }
        if options.bind.is_some() && !options.data.is_empty() {
            return Err(wrong(&format!("unknown option {:?}", options.data[0].0)));
        }
        Ok(Self { mount, target, options })
    }

    /// For a bind mount, a clone of its source, which is a path of the host.
    fn open_source(&self) -> Result<Option<OwnedFd>, Failure> {
        let Some(recursive) = self.options.bind else { return Ok(None) };
        mount::clone_tree_at(rustix::fs::CWD, Path::new(&self.mount.source), recursive)
            .or_fail(Stage::Mount, || format!("cannot bind {:?}", self.mount.source))
            .map(Some)
    }

    /// Whether this is one of the places where links are refused: there is no honest reason for one, and it would move
    /// what masks and read-only paths are about.
    fn is_strict(&self) -> bool {
        self.mount.kind != "tmpfs" || self.target.starts_with("/dev")
    }

    /// Opens the directory to mount on, and makes it if it is missing.
    fn open_target_dir(&self, root: BorrowedFd<'_>) -> Result<OwnedFd, Failure> {
        let what = || format!("cannot mount to {:?}", self.target);
        if !self.is_strict() {
            return paths::make_dirs_in_root(root, &self.target, DIR_MODE).or_fail(Stage::Mount, what);
        }
        let open = || {
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            paths::open_without_links(root, &self.target, flags, Mode::empty())
        };
        let opened = match open() {
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => {
                paths::make_dirs_in_root(root, &self.target, DIR_MODE).or_fail(Stage::Mount, what)?;
                open()
            }
            opened => opened,
        };
        opened.or_fail(Stage::Mount, || match self.is_link(root) {
            true => {
                format!("{:?} is a symbolic link in the image; refused to mount {} there", self.target, self.mount.kind)
            }
            false => what(),
        })
    }

    fn is_link(&self, root: BorrowedFd<'_>) -> bool {
        let opened = paths::open_without_links(root, &self.target, OFlags::PATH, Mode::empty());
        opened.is_err_and(|e| e.raw_os_error() == Some(libc::ELOOP))
    }
}
