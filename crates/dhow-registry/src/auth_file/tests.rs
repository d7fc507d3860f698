use super::*;
use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::sync::Mutex;

fn basic(user: &str, password: &str) -> Credential {
    Credential::Basic { user: user.to_owned(), password: password.to_owned() }
}

#[test]
fn login_keeps_what_is_not_ours_and_logout_removes_the_entry() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("docker/config.json");
    std::fs::create_dir(path.parent().unwrap()).unwrap();
    let before = r#"{"zeta":1,"auths":{"other":{"auth":"dTpw"}},"psFormat":"x","alpha":{"b":[1,2]}}"#;
    std::fs::write(&path, before).unwrap();
    AuthFile::update(&path, |f| f.login("https://Reg:5000/v2/", "", &basic("me", "p:w"), &NoHelpers)).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let order: Vec<_> = ["zeta", "auths", "other", "reg:5000", "psFormat", "alpha"]
        .iter()
        .map(|key| text.find(&format!("\"{key}\"")).unwrap())
        .collect();
    assert!(order.is_sorted(), "{text}");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    let file = AuthFile::load(&path).unwrap();
    assert_eq!(file.get("reg:5000", &NoHelpers).unwrap(), Some(basic("me", "p:w")));
    assert_eq!(file.get("other", &NoHelpers).unwrap(), Some(basic("u", "p")));
    assert_eq!(file.get("reg:5001", &NoHelpers).unwrap(), None);
    assert!(AuthFile::update(&path, |f| f.logout("reg:5000", &NoHelpers)).unwrap());
    assert!(!AuthFile::update(&path, |f| f.logout("reg:5000", &NoHelpers)).unwrap());
    let after: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(after, serde_json::from_str::<Value>(before).unwrap());
    let names: Vec<_> = std::fs::read_dir(path.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["config.json"], "nothing else may be left");
}

#[test]
fn docker_hub_has_one_key_and_old_keys_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    AuthFile::update(&path, |f| f.login("", "", &basic("u", "p"), &NoHelpers)).unwrap();
    let file = AuthFile::load(&path).unwrap();
    assert_eq!(file.servers(), ["https://index.docker.io/v1/"]);
    assert!(file.get("docker.io", &NoHelpers).unwrap().is_some());
    let old = AuthFile::parse(&path, br#"{"auths":{"https://reg.io/v1/":{"username":"a","password":"b"}}}"#).unwrap();
    assert_eq!(old.get("reg.io", &NoHelpers).unwrap(), Some(basic("a", "b")));
}

#[test]
fn identity_tokens_round_trip() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    let token = Credential::IdentityToken("secret-token".to_owned());
    AuthFile::update(&path, |f| f.login("reg.io", "me", &token, &NoHelpers)).unwrap();
    assert_eq!(AuthFile::load(&path).unwrap().get("reg.io", &NoHelpers).unwrap(), Some(token));
}

#[test]
fn a_linked_file_stays_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (real, link) = (dir.path().join("real.json"), dir.path().join("config.json"));
    std::fs::write(&real, "").unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    AuthFile::update(&link, |f| f.login("r", "", &basic("u", "p"), &NoHelpers)).unwrap();
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(std::fs::read_to_string(&real).unwrap().contains("auths"));
}

#[test]
fn broken_files_are_refused_without_quoting_them_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    for bad in
        ["{\"auths\":\"hunter2\"}", "[\"hunter2\"]", "{\"hunter2\"", "{\"auths\":{\"r\":{\"auth\":\"hunter2!\"}}}"]
    {
        std::fs::write(&path, bad).unwrap();
        let error = AuthFile::load(&path).and_then(|f| f.get("r", &NoHelpers)).unwrap_err();
        assert!(!dhow_types::report(&error).contains("hunter2"), "{error}");
        if AuthFile::load(&path).is_err() {
            assert!(AuthFile::update(&path, |f| f.logout("r", &NoHelpers)).is_err());
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), bad);
    }
    std::fs::write(&path, " \n").unwrap();
    assert!(AuthFile::load(&path).is_ok());
}

#[test]
fn concurrent_logins_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = &dir.path().join("config.json");
    std::thread::scope(|scope| {
        for i in 0..8 {
            scope.spawn(move || {
                AuthFile::update(path, |f| f.login(&format!("r{i}"), "", &basic("u", "p"), &NoHelpers)).unwrap()
            });
        }
    });
    assert_eq!(AuthFile::load(path).unwrap().servers().len(), 8);
}

/// A helper with a memory, which also tries to talk.
#[derive(Default)]
struct Memory {
    entries: Mutex<HashMap<String, (String, String)>>,
    calls: Mutex<Vec<String>>,
}

impl HelperRunner for Memory {
    fn run(&self, helper: &str, verb: &str, input: &[u8]) -> io::Result<HelperOutput> {
        self.calls.lock().unwrap().push(format!("{helper} {verb}"));
        let mut entries = self.entries.lock().unwrap();
        let text = String::from_utf8(input.to_vec()).unwrap();
        let ok = |stdout: String| Ok(HelperOutput { success: true, stdout: stdout.into_bytes() });
        match verb {
            "store" => {
                let v: Value = serde_json::from_str(&text).unwrap();
                let field = |n: &str| v[n].as_str().unwrap().to_owned();
                entries.insert(field("ServerURL"), (field("Username"), field("Secret")));
                ok(String::new())
            }
            "get" => match entries.get(&text) {
                Some((user, secret)) => {
                    ok(serde_json::json!({"ServerURL": text, "Username": user, "Secret": secret}).to_string())
                }
                None => {
                    Ok(HelperOutput { success: false, stdout: b"credentials not found in native keychain\n".to_vec() })
                }
            },
            _ => {
                entries.remove(&text);
                ok(String::new())
            }
        }
    }
}

#[test]
fn helpers_keep_the_secret_out_of_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.json");
    std::fs::write(&path, r#"{"credsStore":"all","credHelpers":{"special.io":"one"}}"#).unwrap();
    let helper = Memory::default();
    let stored = AuthFile::update(&path, |f| f.login("special.io", "", &basic("u", "hunter2"), &helper)).unwrap();
    assert_eq!(stored, StoredIn::Helper("one".to_owned()));
    AuthFile::update(&path, |f| f.login("b.io", "u", &Credential::IdentityToken("hunter2".into()), &helper)).unwrap();
    assert!(!std::fs::read_to_string(&path).unwrap().contains("hunter2"));
    let file = AuthFile::load(&path).unwrap();
    assert_eq!(file.get("special.io", &helper).unwrap(), Some(basic("u", "hunter2")));
    assert_eq!(file.get("b.io", &helper).unwrap(), Some(Credential::IdentityToken("hunter2".into())));
    assert_eq!(file.get("c.io", &helper).unwrap(), None);
    assert!(AuthFile::update(&path, |f| f.logout("b.io", &helper)).unwrap());
    assert_eq!(AuthFile::load(&path).unwrap().get("b.io", &helper).unwrap(), None);
    let calls = helper.calls.lock().unwrap();
    assert!(calls.starts_with(&["one store".to_owned(), "all store".to_owned(), "one get".to_owned()]), "{calls:?}");
}

#[test]
fn helper_names_that_could_be_paths_are_refused() {
    for name in ["../evil", "a/b", "/bin/sh", "a..b", "a b", "", "x;y"] {
        let text = serde_json::json!({"credHelpers": {"r": name}}).to_string();
        let file = AuthFile::parse(Path::new("x"), text.as_bytes()).unwrap();
        let helper = Memory::default();
        match file.get("r", &helper) {
            Err(RegistryError::HelperName(_)) => {}
            Ok(None) if name.is_empty() => {}
            other => panic!("{name:?}: {other:?}"),
        }
        assert!(helper.calls.lock().unwrap().is_empty(), "{name:?} was run");
    }
}

#[test]
fn a_failing_helper_is_not_quoted() {
    struct Talks(usize);
    impl HelperRunner for Talks {
        fn run(&self, _: &str, _: &str, _: &[u8]) -> io::Result<HelperOutput> {
            Ok(HelperOutput { success: self.0 > 0, stdout: b"hunter2 ".repeat(1 + self.0) })
        }
    }
    let file = AuthFile::parse(Path::new("x"), br#"{"credsStore":"talks"}"#).unwrap();
    for size in [0, 1, 100_000] {
        let error = file.get("r", &Talks(size)).unwrap_err();
        assert!(!dhow_types::report(&error).contains("hunter2"), "{error}");
    }
}
