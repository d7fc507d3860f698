//! Any text as a word, expanded with every combination of options.
#![no_main]

use dhow_dockerfile::Expander;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let lookup = |name: &str| (name.len() % 2 == 1).then(|| format!("<{name} $x>"));
    for escape in ['\\', '`'] {
        let plain = Expander::new(escape, &lookup);
        for expander in [plain, plain.raw_quotes(), plain.raw_escapes(), plain.keep_unset(), plain.plain_quotes()] {
            let Ok(expansion) = expander.expand(text) else { continue };
            assert!(expansion.undefined.len() <= expansion.unset.len());
            if !text.contains(['$', '\'', '"', escape]) {
                assert_eq!(expansion.text, text);
                assert!(expansion.unset.is_empty() && expansion.used.is_empty());
            }
        }
    }
});
