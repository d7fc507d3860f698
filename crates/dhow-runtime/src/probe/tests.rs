use super::*;
use std::fmt::Write;
use std::path::Path;

#[test]
fn this_host_can_run_containers() {
    let report = host();
    for name in
        ["overlay", "openat2", "clone3", "pidfd", "close_range", "mount_setattr", "new mount API", "seccomp filter"]
    {
        assert!(report.feature(name).unwrap().found, "{name}");
    }
    assert!(report.kernel.version >= (5, 15), "{:?}", report.kernel);
    assert!(report.machine.cpus > 0 && report.machine.memory > 0);
    assert_eq!(report.limits.len(), 15);
    assert_eq!(report.features.len(), FEATURES.len());
    assert_eq!(report.missing().count(), report.features.iter().filter(|f| !f.found).count());
}

#[test]
fn root_features_that_need_rights() {
    let report = host();
    for name in ["overlay volatile", "overlay userxattr", "cgroup device control", "nftables", "CAP_SYS_ADMIN"] {
        assert!(report.feature(name).unwrap().found, "{name}");
    }
    let lowerdir = report.feature("overlay lowerdir+").unwrap().found;
    assert_eq!(lowerdir, report.kernel.version >= (6, 5));
}

#[test]
fn rows_are_complete_and_names_unique() {
    let mut names: Vec<&str> = FEATURES.iter().map(|f| f.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), FEATURES.len());
    for f in FEATURES {
        for text in [f.name, f.since, f.purpose, f.without] {
            assert!(!text.is_empty() && !text.contains('|'), "{text:?}");
        }
    }
}

/// `docs/kernel-features.md` has the rows of the code, word for word.
#[test]
fn documentation_is_in_step() {
    let mut table =
        "| feature | since Linux | what dhow uses it for | what happens without |\n|---|---|---|---|\n".to_owned();
    for f in FEATURES {
        writeln!(table, "| {} | {} | {} | {} |", f.name, f.since, f.purpose, f.without).unwrap();
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/kernel-features.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let start = text.find("| feature |").expect("the document has the table");
    let found: String = text[start..].lines().take_while(|l| l.starts_with('|')).map(|l| format!("{l}\n")).collect();
    if std::env::var_os("DHOW_UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text.replace(&found, &table)).unwrap();
        return;
    }
    assert!(found == table, "{} is out of step; DHOW_UPDATE_GOLDEN=1 rewrites its table", path.display());
}
