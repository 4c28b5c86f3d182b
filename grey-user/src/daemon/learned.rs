//! What was learned, in a file of the state folder: read at the start, kept each minute and at the end.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use grey_core::govern::learn::Model;
use serde::{Deserialize, Serialize};

const EVERY: Duration = Duration::from_secs(60);
const VERSION: u32 = 1;
/// No model is larger.
const MOST: u64 = 64 << 10;

#[derive(Serialize, Deserialize)]
struct Document {
    version: u32,
    model: Model,
}

/// The file.
pub(super) struct Learned {
    path: PathBuf,
    kept: u64,
    at: Instant,
    failing: bool,
}

impl Learned {
    /// The file in this folder and what it holds; a line where that cannot be used.
    pub(super) fn open(dir: &Path) -> (Learned, Model, Option<String>) {
        let path = dir.join("learned.json");
        let (model, trouble) = match load(&path) {
            Ok(model) => (model.unwrap_or_default(), None),
            Err(why) => (
                Model::default(),
                Some(format!("{}: {why}; learning begins anew", path.display())),
            ),
        };
        let learned = Learned {
            path,
            kept: model.outcomes,
            at: Instant::now(),
            failing: false,
        };
        (learned, model, trouble)
    }

    /// Keeps the model, if it is time to and there is news. A line when that fails for the first time.
    pub(super) fn tick(&mut self, model: &Model) -> Option<String> {
        if self.at.elapsed() < EVERY {
            return None;
        }
        self.keep(model)
    }

    /// Keeps the model, if there is news.
    pub(super) fn keep(&mut self, model: &Model) -> Option<String> {
        self.at = Instant::now();
        if model.outcomes == self.kept {
            return None;
        }
        match save(&self.path, model) {
            Ok(()) => {
                self.kept = model.outcomes;
                self.failing = false;
                None
            }
            Err(error) => {
                let first = !std::mem::replace(&mut self.failing, true);
                first.then(|| {
                    format!(
                        "{}: {error}; what is learned is lost at the end",
                        self.path.display()
                    )
                })
            }
        }
    }
}

fn load(path: &Path) -> Result<Option<Model>, String> {
    let text = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
        Ok(facts) if facts.len() > MOST => return Err("is larger than any model".to_owned()),
        Ok(_) => fs::read_to_string(path).map_err(|error| error.to_string())?,
    };
    let document: Document = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    if document.version != VERSION {
        return Err(format!("is of version {}", document.version));
    }
    if !document.model.is_sound() {
        return Err("holds figures that nothing leads to".to_owned());
    }
    Ok(Some(document.model))
}

fn save(path: &Path, model: &Model) -> io::Result<()> {
    let document = Document {
        version: VERSION,
        model: model.clone(),
    };
    let new = path.with_extension("new");
    fs::write(&new, serde_json::to_vec_pretty(&document)?)?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_kept_and_a_broken_file_is_told_and_begun_anew() {
        let dir = std::env::temp_dir().join(format!("grey-learned-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let (mut learned, mut model, trouble) = Learned::open(&dir);
        assert_eq!((&model, trouble), (&Model::default(), None));
        model.learn(&Default::default(), true);
        assert_eq!(learned.keep(&model), None);
        assert_eq!(Learned::open(&dir).1, model);
        let path = dir.join("learned.json");
        for broken in ["", "{", "{\"version\":9,\"model\":{}}", "[1]"] {
            fs::write(&path, broken).unwrap();
            let (_, model, trouble) = Learned::open(&dir);
            assert_eq!(model, Model::default());
            assert!(trouble.unwrap().contains("learning begins anew"));
        }
        fs::remove_dir_all(&dir).unwrap();
    }
}
