//! The W3C trace context that goes with a request: <https://www.w3.org/TR/trace-context/#traceparent-header>.
//!
//! What a producer sends is handed on as it is, and what is no trace context is left out, as the recommendation says.

use crate::ids::RequestId;

/// The text, if it is a `traceparent` header: `version-trace-parent-flags` in lower-case hexadecimal digits, with ids
/// that are not all zero. A version after 00 may have more parts.
pub fn traceparent(text: &str) -> Option<&str> {
    // Later versions are longer; this bounds what goes into headers and environments.
    const LONGEST: usize = 256;
    let mut parts = text.split('-');
    let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let lengths = [version, trace, parent, flags].map(str::len) == [2, 32, 16, 2];
    let hexadecimal = |part: &str| part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let all_zero = |part: &str| part.bytes().all(|b| b == b'0');
    let sound = lengths
        && [version, trace, parent, flags].into_iter().all(hexadecimal)
        && version != "ff"
        && !all_zero(trace)
        && !all_zero(parent)
        && (version != "00" || parts.next().is_none())
        && text.len() <= LONGEST
        && text.bytes().all(|b| b.is_ascii_graphic());
    sound.then_some(text)
}

/// The `traceparent` of a request that came without one: its own id is the trace's. Sampling is left on: nobody has
/// decided against it.
pub fn beginning_with(request: RequestId) -> String {
    let id = request.0.simple().to_string();
    // The second half of a UUID is never all zero: it begins with the variant.
    format!("00-{id}-{}-01", &id[16..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_no_trace_context_is_left_out() {
        let sound = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let newer = format!("{}-what-comes-later", sound.replacen("00", "cc", 1));
        for text in [sound, &newer] {
            assert_eq!(traceparent(text), Some(text));
        }
        for text in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0g",
            &format!("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-{}", "x".repeat(300)),
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-a\nb",
        ] {
            assert_eq!(traceparent(text), None, "{text}");
        }
    }

    #[test]
    fn a_request_begins_a_trace_with_its_own_id() {
        let request: RequestId = "01980000-0000-7000-8000-000000000000".parse().unwrap();
        let begun = beginning_with(request);
        assert_eq!(begun, "00-01980000000070008000000000000000-8000000000000000-01");
        assert_eq!(traceparent(&begun), Some(&*begun));
        let random = beginning_with(RequestId::new());
        assert_eq!(traceparent(&random), Some(&*random));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,80}") {
            let _ = traceparent(&text);
        }
    }
}
