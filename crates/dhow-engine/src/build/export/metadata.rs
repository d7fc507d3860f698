//! `--metadata-file`, with the keys that buildx writes.

use super::Exported;
use dhow_types::Reference;
use serde_json::{Map, Value, json};

impl Exported {
    /// The result of the build as a JSON document. `buildx.build.ref` is not there: no history keeps builds to refer to.
    pub fn metadata(&self) -> String {
        let mut all = Map::new();
        all.insert("containerimage.config.digest".to_owned(), json!(self.image.to_string()));
        if let Some(descriptor) = &self.descriptor {
            all.insert("containerimage.descriptor".to_owned(), json!(descriptor));
        }
        all.insert("containerimage.digest".to_owned(), json!(self.digest.to_string()));
        if !self.names.is_empty() {
            let names: Vec<String> = self.names.iter().map(Reference::to_string).collect();
            all.insert("image.name".to_owned(), json!(names.join(",")));
        }
        // A map of strings and documents always has a text.
        serde_json::to_string_pretty(&Value::Object(all)).unwrap_or_default()
    }
}
