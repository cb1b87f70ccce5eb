//! What Forecastle promises, with real programs, real servers and real kernel limits.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod asking_again;
mod bad_input;
mod killed;
mod measuring;
mod outliving;
mod preallocating;
mod pseudo_terminal;
mod replaying;
mod sharing;
mod starting;
mod timing;
mod tiny;
mod top;

use std::path::Path;

/// A catalogue of one type `work` with unit `unit`, whose definition is `definition`, and a manifest at the end.
fn catalogue(definition: &str) -> String {
    format!(
        r#"
version = 1

[types.work]
input = "directory"
[[types.work.stages]]
name = "files"
units = ["unit"]
over = "items"
shard = {{ max_items = 1 }}
[[types.work.stages]]
name = "manifest"
units = ["manifest"]
over = "once"
depends_on = ["files"]

[units.unit]
{definition}

[units.manifest]
task = "forecastle.manifest"
reserve = {{ cpu = "100m", memory = "16MiB", duration = "1s" }}
"#
    )
}

/// Writes `count` small files that differ.
fn write_files(folder: &Path, count: usize) {
    for number in 0..count {
        std::fs::write(folder.join(format!("file-{number:04}")), format!("file {number}\n").repeat(number + 1))
            .unwrap();
    }
}
