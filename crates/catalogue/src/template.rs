//! Text with placeholders.
//!
//! A template renders to exactly one text: a value is put in as it is and cannot add arguments, since no shell and no
//! splitting ever sees the result.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::name;

/// A text such as `{name}.xz`. `{word}` is a placeholder; `{{` and `}}` are braces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// Literals are never empty and never adjacent.
    segments: Vec<Segment>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Literal(String),
    Placeholder(String),
}

/// Why a text is no template. Positions count characters from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A `{` without its `}`.
    #[error("`{{` at character {at} is not closed; write `{{{{` for a brace")]
    Unclosed {
        /// Where.
        at: usize,
    },
    /// A `}` without its `{`.
    #[error("`}}` at character {at} closes nothing; write `}}}}` for a brace")]
    Stray {
        /// Where.
        at: usize,
    },
    /// What stands between the braces is no placeholder's name.
    #[error(
        "`{{{name}}}` at character {at} is no placeholder: use a-z, 0-9 and `_`, a letter first; write `{{{{` for a brace"
    )]
    BadName {
        /// Where.
        at: usize,
        /// What stands there.
        name: String,
    },
    /// A NUL character, which no argument and no path can hold.
    #[error("character {at} is NUL")]
    Nul {
        /// Where.
        at: usize,
    },
}

/// Why a template cannot be rendered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// There is no value for a placeholder.
    #[error("there is no value for `{{{name}}}`")]
    Missing {
        /// The placeholder.
        name: String,
    },
    /// A value holds a NUL character, which no argument and no path can hold.
    #[error("the value of `{{{name}}}` holds a NUL character")]
    Nul {
        /// The placeholder.
        name: String,
    },
}

impl Template {
    /// Reads a template.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut segments = Vec::new();
        let mut literal = String::new();
        let mut chars = text.chars().enumerate().map(|(index, c)| (index + 1, c)).peekable();
        while let Some((at, c)) = chars.next() {
            match c {
                '\0' => return Err(TemplateError::Nul { at }),
                '{' if chars.next_if(|(_, next)| *next == '{').is_some() => literal.push('{'),
                '}' if chars.next_if(|(_, next)| *next == '}').is_some() => literal.push('}'),
                '}' => return Err(TemplateError::Stray { at }),
                '{' => {
                    let mut name = String::new();
                    loop {
                        match chars.next() {
                            None => return Err(TemplateError::Unclosed { at }),
                            Some((_, '}')) => break,
                            Some((_, c)) => name.push(c),
                        }
                    }
                    if !name::is_valid_parameter(&name) {
                        return Err(TemplateError::BadName { at, name: name.chars().take(64).collect() });
                    }
                    if !literal.is_empty() {
                        segments.push(Segment::Literal(std::mem::take(&mut literal)));
                    }
                    segments.push(Segment::Placeholder(name));
                }
                c => literal.push(c),
            }
        }
        if !literal.is_empty() {
            segments.push(Segment::Literal(literal));
        }
        Ok(Self { segments })
    }

    /// Puts a value in the place of every placeholder. `value` answers `None` for names it does not know.
    pub fn render(&self, value: &dyn Fn(&str) -> Option<String>) -> Result<String, RenderError> {
        let mut text = String::new();
        for segment in &self.segments {
            match segment {
                Segment::Literal(literal) => text.push_str(literal),
                Segment::Placeholder(name) => {
                    let value = value(name).ok_or_else(|| RenderError::Missing { name: name.clone() })?;
                    if value.contains('\0') {
                        return Err(RenderError::Nul { name: name.clone() });
                    }
                    text.push_str(&value);
                }
            }
        }
        Ok(text)
    }

    /// The placeholders, in order of appearance, with repetitions.
    pub fn placeholders(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Placeholder(name) => Some(name.as_str()),
            Segment::Literal(_) => None,
        })
    }

    /// The text itself, if there is no placeholder in it.
    pub fn as_literal(&self) -> Option<&str> {
        match self.segments.as_slice() {
            [] => Some(""),
            [Segment::Literal(literal)] => Some(literal),
            _ => None,
        }
    }

    /// The placeholder's name, if the template is one placeholder and nothing else.
    pub fn as_placeholder(&self) -> Option<&str> {
        match self.segments.as_slice() {
            [Segment::Placeholder(name)] => Some(name),
            _ => None,
        }
    }
}

impl FromStr for Template {
    type Err = TemplateError;
    fn from_str(text: &str) -> Result<Self, TemplateError> {
        Self::parse(text)
    }
}

/// The template as it is written, braces doubled.
impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for segment in &self.segments {
            match segment {
                Segment::Literal(text) => f.write_str(&text.replace('{', "{{").replace('}', "}}"))?,
                Segment::Placeholder(name) => write!(f, "{{{name}}}")?,
            }
        }
        Ok(())
    }
}

impl Serialize for Template {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn render(template: &str) -> String {
        let value = |name: &str| match name {
            "level" => Some("19".to_owned()),
            "name" => Some("a b/{level} $(x) 'y'".to_owned()),
            "nul" => Some("a\0b".to_owned()),
            _ => None,
        };
        Template::parse(template).unwrap().render(&value).unwrap_or_else(|error| error.to_string())
    }

    #[test]
    fn values_are_put_in_as_they_are() {
        assert_eq!(render("-{level}"), "-19");
        assert_eq!(render("{name}.xz"), "a b/{level} $(x) 'y'.xz");
        assert_eq!(render("{{{level}}}"), "{19}");
        assert_eq!(render("plain"), "plain");
        assert_eq!(render(""), "");
    }

    #[test]
    fn a_missing_or_unusable_value_is_named() {
        assert_eq!(render("{other}"), "there is no value for `{other}`");
        assert_eq!(render("{nul}"), "the value of `{nul}` holds a NUL character");
    }

    #[test]
    fn faults_are_located() {
        let error = |text| Template::parse(text).unwrap_err();
        assert_eq!(error("é{level"), TemplateError::Unclosed { at: 2 });
        assert_eq!(error("a}b"), TemplateError::Stray { at: 2 });
        assert_eq!(error("{}"), TemplateError::BadName { at: 1, name: String::new() });
        assert_eq!(error("{Level}"), TemplateError::BadName { at: 1, name: "Level".to_owned() });
        assert_eq!(error("a\0"), TemplateError::Nul { at: 2 });
        assert_eq!(error("{").to_string(), "`{` at character 1 is not closed; write `{{` for a brace");
        assert_eq!(error("}").to_string(), "`}` at character 1 closes nothing; write `}}` for a brace");
    }

    #[test]
    fn tells_literals_and_whole_placeholders() {
        let parse = |text| Template::parse(text).unwrap();
        assert_eq!(parse("a{{b").as_literal(), Some("a{b"));
        assert_eq!(parse("{inputs}").as_placeholder(), Some("inputs"));
        assert_eq!(parse("x{inputs}").as_placeholder(), None);
        assert_eq!(parse("{a}{b}{a}").placeholders().collect::<Vec<_>>(), ["a", "b", "a"]);
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_prints_what_it_read(text in "[{}a-z_\\x00 ]{0,12}|.*") {
            if let Ok(template) = Template::parse(&text) {
                prop_assert_eq!(Template::parse(&template.to_string()), Ok(template.clone()));
                prop_assert_eq!(template.to_string(), text);
            }
        }

        #[test]
        fn escaped_text_renders_to_itself(text in "[^\\x00]*") {
            let template = Template::parse(&text.replace('{', "{{").replace('}', "}}")).unwrap();
            prop_assert_eq!(template.as_literal(), Some(text.as_str()));
            prop_assert_eq!(template.render(&|_| None), Ok(text));
        }
    }
}
