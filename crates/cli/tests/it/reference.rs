//! The book's page of the command line is what `--help` says.

use std::path::PathBuf;

use crate::program::Program;
use crate::server::{Server, unknown_route};

/// What follows is generated, up to the end of the page.
const MARK: &str =
    "<!-- From here on: what --help says. FORECASTLE_WRITE_REFERENCE=1 makes the test write it anew. -->\n";

async fn help(program: &Program, arguments: &[&str]) -> String {
    let ran = program.run(arguments).await;
    assert_eq!((ran.status, &*ran.stderr), (0, ""), "{arguments:?}");
    let lines: Vec<_> = ran.stdout.lines().map(str::trim_end).collect();
    lines.join("\n").trim_end().to_owned()
}

/// The commands that the program lists.
fn commands(overview: &str) -> Vec<&str> {
    let list = overview.split_once("Commands:\n").unwrap().1.split_once("\n\n").unwrap().0;
    // A line that is indented further goes on with the one before.
    let names = list.lines().filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").collect()
}

#[tokio::test]
async fn the_page_of_the_command_line_is_what_help_says() {
    let page = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/src/reference/cli.md");
    let program = Program::new(&Server::new(|_| unknown_route()).await).without("FORECASTLE_URL");
    let overview = help(&program, &["--help"]).await;
    let mut generated = format!("\n## forecastle\n\n```text\n{overview}\n```\n");
    let listed = commands(&overview);
    assert!(listed.contains(&"submit") && listed.contains(&"top"), "{listed:?}");
    for command in listed {
        let text = help(&program, &[command, "--help"]).await;
        generated = format!("{generated}\n## forecastle {command}\n\n```text\n{text}\n```\n");
        if !text.contains("Commands:\n") {
            continue;
        }
        for inner in commands(&text) {
            let text = help(&program, &[command, inner, "--help"]).await;
            generated = format!("{generated}\n### forecastle {command} {inner}\n\n```text\n{text}\n```\n");
        }
    }
    let text = std::fs::read_to_string(&page).unwrap();
    let (written, found) = text.split_once(MARK).expect("the page has the mark");
    if std::env::var_os("FORECASTLE_WRITE_REFERENCE").is_some() {
        std::fs::write(&page, format!("{written}{MARK}{generated}")).unwrap();
        return;
    }
    assert!(
        found == generated,
        "docs/src/reference/cli.md is not what --help says. Write it anew with\n  FORECASTLE_WRITE_REFERENCE=1 cargo \
         test --workspace --test it -- the_page_of_the_command_line\nand look at what changed."
    );
}
