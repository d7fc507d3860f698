//! `docs/compat/dockerfile.tsv` lists every rule of Dockerfiles with whether dhow has it. Nothing may be missing from it in
//! silence.

use std::path::Path;

#[test]
fn every_rule_has_a_state() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/compat/dockerfile.tsv");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut rows = text.lines().filter(|l| !l.starts_with('#'));
    let header = rows.next().unwrap();
    assert!(header.starts_with("kind\tname\t") && header.ends_with("\tdhow"), "{header}");
    let (mut yes, mut other) = (0, 0);
    for row in rows {
        let state = row.rsplit('\t').next().unwrap();
        match state.split(':').next().unwrap() {
            "yes" => yes += 1,
            "no" | "differs" => other += 1,
            _ => panic!("no state in: {row}"),
        }
    }
    assert!(yes > 150 && yes + other > 220, "{yes} rules are there, {other} are not: rows were lost");
}
