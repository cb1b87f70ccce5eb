//! The book's page about the configuration says what the code says. `UPDATE_EXPECT=1 cargo test --workspace --test it
//! reference::` rewrites it.

use expect_test::expect_file;
use forecastle_frontend::options::FrontendOptions;

#[test]
fn the_page_of_the_configuration_is_what_the_code_says() {
    let keys = forecastle_service::reference::markdown::<FrontendOptions>().unwrap();
    assert!(!keys.contains("[`"), "links of the code's documentation lead nowhere in the book");
    let page = format!(
        "# Configuration of the frontend\n\n\
         <!-- Made from the code: UPDATE_EXPECT=1 cargo test --workspace --test it reference:: -->\n\n\
         Layers, files and secrets are explained in [Configuration](configuration.md), sizes, rates, cores and durations in\n\
         [Quantities](../concepts/words.md#quantities).\n\n{keys}"
    );
    expect_file!["../../../docs/src/reference/configuration-frontend.md"].assert_eq(&page);
}
