//! Names that stay below the folder they belong to.

/// The longest path that the kernel takes.
const LONGEST: usize = 4096;

/// Why a name could lead out of its folder, or nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a name below a folder: {why}", name.escape_debug().take(256).collect::<String>())]
pub struct NotRelative {
    name: String,
    why: &'static str,
}

/// Checks that a name is a path below some folder: relative, without `.`, `..`, empty parts or NUL.
pub fn check(name: &str) -> Result<(), NotRelative> {
    let why = if name.is_empty() {
        "it is empty"
    } else if name.len() > LONGEST {
        "it is too long"
    } else if name.contains('\0') {
        "it holds a NUL character"
    } else if name.starts_with('/') {
        "it is absolute"
    } else if name.split('/').any(|part| part == "..") {
        "it leads upwards"
    } else if name.split('/').any(|part| part.is_empty() || part == ".") {
        "it has a part that is empty or a dot"
    } else {
        return Ok(());
    };
    Err(NotRelative { name: name.to_owned(), why })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::{Component, Path};

    #[test]
    fn names_that_lead_elsewhere_are_refused_and_say_why() {
        for (name, why) in [
            ("", "empty"),
            ("/etc/passwd", "absolute"),
            ("a/../../b", "upwards"),
            ("..", "upwards"),
            ("a//b", "empty or a dot"),
            ("./a", "empty or a dot"),
            ("a/", "empty or a dot"),
            ("a\0b", "NUL"),
        ] {
            let error = check(name).unwrap_err().to_string();
            assert!(error.contains(why), "{name:?}: {error}");
        }
        assert!(check(&"x".repeat(LONGEST + 1)).unwrap_err().to_string().len() < 400);
        for name in ["a", "a b/c", "-rf", "...", "a\n\"'$(x)"] {
            assert_eq!(check(name), Ok(()), "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_accepted_stays_below(name in "[a./\\x00]{0,9}|.*") {
            if check(&name).is_ok() {
                let mut parts = Path::new(&name).components();
                prop_assert!(parts.all(|part| matches!(part, Component::Normal(_))));
            }
        }
    }
}
