//! Whose token it is.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::api::Serving;
use super::failure::Failure;

/// The tenant that the token decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tenant(pub(super) String);

/// Whether the token is an operator's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Operator(pub(super) bool);

/// Lets in who has a token, and says whose it is.
pub(super) async fn require_token(State(serving): State<Arc<Serving>>, mut request: Request, next: Next) -> Response {
    let identity =
        bearer(request.headers()).and_then(|token| serving.api.tokens.identify(token).cloned().ok_or(Refused::Unknown));
    match identity {
        Ok(identity) => {
            request.extensions_mut().insert(Operator(identity.operator));
            request.extensions_mut().insert(Tenant(identity.tenant));
            next.run(request).await
        }
        Err(refused) => Failure::from(refused).into_response(),
    }
}

/// Why nobody is let in. None repeats what was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refused {
    Missing,
    Malformed,
    Unknown,
}

/// The token of `Authorization: Bearer …`.
fn bearer(headers: &HeaderMap) -> Result<&str, Refused> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().ok_or(Refused::Missing)?;
    if values.next().is_some() {
        return Err(Refused::Malformed);
    }
    let value = value.to_str().map_err(|_| Refused::Malformed)?;
    match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty() => Ok(token.trim()),
        _ => Err(Refused::Malformed),
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        let (challenge, message) = match refused {
            Refused::Missing => ("Bearer realm=\"forecastle\"", "send a token: Authorization: Bearer <token>"),
            Refused::Malformed => (
                "Bearer realm=\"forecastle\", error=\"invalid_request\"",
                "the Authorization header must be one `Bearer <token>`",
            ),
            Refused::Unknown => {
                ("Bearer realm=\"forecastle\", error=\"invalid_token\"", "this token opens nothing here")
            }
        };
        Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", "Authorization", message)
            .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (header::AUTHORIZATION, HeaderValue::from_str(value).unwrap())).collect()
    }

    #[test]
    fn a_token_is_read_whatever_the_case_of_its_scheme() {
        for value in ["Bearer secret", "bearer secret", "BEARER  secret "] {
            assert_eq!(bearer(&headers(&[value])), Ok("secret"), "{value}");
        }
    }

    #[test]
    fn what_is_no_single_bearer_token_is_refused() {
        assert_eq!(bearer(&headers(&[])), Err(Refused::Missing));
        for value in ["", "Bearer", "Bearer ", "Basic c2VjcmV0", "secret"] {
            assert_eq!(bearer(&headers(&[value])), Err(Refused::Malformed), "{value}");
        }
        assert_eq!(bearer(&headers(&["Bearer a", "Bearer b"])), Err(Refused::Malformed));
        let mut not_ascii = HeaderMap::new();
        not_ascii.insert(header::AUTHORIZATION, HeaderValue::from_bytes(b"Bearer \xff").unwrap());
        assert_eq!(bearer(&not_ascii), Err(Refused::Malformed));
    }
}
