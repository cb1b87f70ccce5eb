//! Splits SQL into statements, since ClickHouse's HTTP endpoint takes one at a time.

/// The statements of `sql`, without their semicolons and without comments that stand alone. Semicolons inside quotes
/// and comments do not end a statement.
pub fn split(sql: &str) -> Vec<&str> {
    let bytes = sql.as_bytes();
    let (mut statements, mut start, mut at) = (Vec::new(), 0, 0);
    // Whether there is anything but blanks and comments since `start`.
    let mut something = false;
    while at < bytes.len() {
        match bytes[at] {
            b';' => {
                if something {
                    statements.push(sql[start..at].trim());
                }
                (start, something) = (at + 1, false);
                at += 1;
            }
            quote @ (b'\'' | b'"' | b'`') => {
                something = true;
                at = end_of_quote(bytes, at, quote);
            }
            b'-' if bytes.get(at + 1) == Some(&b'-') => at = find(bytes, at, b"\n"),
            b'/' if bytes.get(at + 1) == Some(&b'*') => at = find(bytes, at + 2, b"*/"),
            byte => {
                something |= !byte.is_ascii_whitespace();
                at += 1;
            }
        }
    }
    if something {
        statements.push(sql[start..].trim());
    }
    statements
}

/// After the quote that closes the one at `open`. A backslash escapes; a doubled quote reopens at once, which comes
/// to the same.
fn end_of_quote(bytes: &[u8], open: usize, quote: u8) -> usize {
    let mut at = open + 1;
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

/// After the next `end`, or the end of everything.
fn find(bytes: &[u8], from: usize, end: &[u8]) -> usize {
    let rest = bytes.get(from..).unwrap_or_default();
    rest.windows(end.len()).position(|window| window == end).map_or(bytes.len(), |at| from + at + end.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_at_semicolons_outside_quotes_and_comments() {
        let sql =
            "-- first; comment\nSELECT ';', \"a;b\", `c;d`, 'it''s;', 'x\\';' /* ; */ ;\n\n;; -- nothing\nSELECT 2";
        let statements = split(sql);
        assert_eq!(statements.len(), 2, "{statements:?}");
        assert!(statements[0].ends_with("/* ; */"), "{statements:?}");
        assert_eq!(statements[1].lines().last(), Some("SELECT 2"));
    }

    #[test]
    fn nothing_has_no_statements() {
        for sql in ["", "  \n", ";;", "-- only a comment", "/* only; a comment", "--;\n/*;*/;"] {
            assert_eq!(split(sql), Vec::<&str>::new(), "{sql}");
        }
    }

    #[test]
    fn what_is_not_closed_ends_with_the_text() {
        for sql in ["SELECT 'open; ", "SELECT `a\\", "SELECT 1 /* open ;", "SELECT 'ä;\\"] {
            assert_eq!(split(sql), [sql.trim()]);
        }
    }
}
