"""Every setting is documented, with the default that it has; what cannot work, or must not, is refused by its name."""

import os
import re
from pathlib import Path

import pytest

from models.errors import ConfigurationError
from models.settings import PREFIX, Settings

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "settings.md"
STRONG = "q7Zk2vN9xR4tW8mB1cY6hJ3pL5sD0fG-"
PRODUCTION = {
    "ENV": "production",
    "SECRET_KEY": STRONG,
    "STRIPE_SECRET_KEY": "sk_live_51Habc",
    "STRIPE_WEBHOOK_SECRET": "whsec_5Habc",
    "BASE_URL": "https://pitlane.example",
}


def documented() -> list[tuple[str, str]]:
    """Return the name and the default of each row of the page's table."""
    return re.findall(r"^\| `PITLANE_(\w+)` \| (.+?) \|", PAGE.read_text(), re.MULTILINE)


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Loads the settings from an environment of these alone, and a ``.env`` where there is one."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.upper().startswith(PREFIX)]:
        monkeypatch.delenv(name)

    def load(**variables: str) -> Settings:
        with monkeypatch.context() as patched:
            for name, value in variables.items():
                patched.setenv(f"{PREFIX}{name}", value)
            return Settings.load()

    return load


def test_every_setting_has_its_row_in_the_order_in_which_it_is_declared() -> None:
    assert [name for name, _ in documented()] == [name.upper() for name in Settings.model_fields]


def test_the_documented_defaults_are_those_that_are_taken() -> None:
    defaults = {name.upper(): field.default for name, field in Settings.model_fields.items()}
    for name, said in documented():
        # Where there is none, the row says in words what takes its place.
        is_words = not said.startswith("`")
        assert is_words if defaults[name] is None else said == f"`{defaults[name]}`", name


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"SECRET_KEY": f"{STRONG}, {STRONG[::-1]}"},
        {"STRIPE_SECRET_KEY": "rk_live_51Habc", "STRIPE_WEBHOOK_SECRET": "whsec_5Habc,whsec_5Hdef"},
        # Sixteen kinds of characters are enough, if there are enough of them.
        {"SECRET_KEY": "0f9c1b7e52d84a63c0e1f7a9b2d45886"},
    ],
)
def test_production_starts_with_what_is_good_for_it(load, changes: dict[str, str]) -> None:
    assert load(**PRODUCTION | changes).env == "production"


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"SECRET_KEY": ""}, "SECRET_KEY"),
        ({"SECRET_KEY": "short"}, "SECRET_KEY"),
        ({"SECRET_KEY": ","}, "SECRET_KEY"),
        ({"SECRET_KEY": "x" * 64}, "SECRET_KEY"),
        ({"SECRET_KEY": "abcabcab" * 8}, "SECRET_KEY"),
        ({"SECRET_KEY": "abcdefgh" * 8}, "SECRET_KEY"),
        ({"SECRET_KEY": "change-me-0123456789-abcdefghijklm"}, "SECRET_KEY"),
        ({"SECRET_KEY": f"{STRONG},short"}, "SECRET_KEY"),
        ({"SECRET_KEY": f"{'x' * 40},{STRONG}"}, "SECRET_KEY"),
        ({"STRIPE_SECRET_KEY": "", "STRIPE_WEBHOOK_SECRET": ""}, "STRIPE_SECRET_KEY"),
        ({"STRIPE_SECRET_KEY": "sk_test_51Habc"}, "STRIPE_SECRET_KEY"),
        ({"STRIPE_SECRET_KEY": "rk_test_51Habc"}, "STRIPE_SECRET_KEY"),
        ({"STRIPE_SECRET_KEY": "pk_live_51Habc"}, "STRIPE_SECRET_KEY"),
        ({"STRIPE_WEBHOOK_SECRET": ""}, "STRIPE_WEBHOOK_SECRET"),
        ({"STRIPE_WEBHOOK_SECRET": ","}, "STRIPE_WEBHOOK_SECRET"),
        ({"STRIPE_WEBHOOK_SECRET": "5Habc"}, "STRIPE_WEBHOOK_SECRET"),
        ({"STRIPE_WEBHOOK_SECRET": "whsec_"}, "STRIPE_WEBHOOK_SECRET"),
        ({"STRIPE_WEBHOOK_SECRET": "whsec_5Habc,oops"}, "STRIPE_WEBHOOK_SECRET"),
        ({"STRIPE_API_BASE": "http://127.0.0.1:8000/stripe-standin"}, "STRIPE_API_BASE"),
        ({"BASE_URL": ""}, "BASE_URL"),
        ({"BASE_URL": "http://pitlane.example"}, "BASE_URL"),
        ({"BASE_URL": "https://"}, "BASE_URL"),
    ],
)
def test_production_refuses_what_is_good_for_development_only(load, changes: dict[str, str], name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^PITLANE_{name} ") as refused:
        load(**PRODUCTION | changes)
    shown = [value for value in changes.values() if len(value) > 6 and "http" not in value]
    assert not any(value in str(refused.value) for value in shown), "a secret is not repeated"


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"STRIPE_SECRET_KEY": "sk_test_x", "STRIPE_WEBHOOK_SECRET": " , "}, "STRIPE_WEBHOOK_SECRET"),
        ({"SECRET_KEY": " , "}, "SECRET_KEY"),
        ({"TRUSTED_PROXIES": "0.0.0.0/0"}, "TRUSTED_PROXIES"),
        ({"TRUSTED_PROXIES": "10.0.0.1/8"}, "TRUSTED_PROXIES"),
        ({"TRUSTED_PROXIES": "proxy.example"}, "TRUSTED_PROXIES"),
        ({"TRUSTED_PROXIES": ","}, "TRUSTED_PROXIES"),
        ({"STANDIN_ON_NETWORK": "perhaps"}, "STANDIN_ON_NETWORK"),
        ({"BASE_URL": "https://pitlane.example:port"}, "BASE_URL"),
    ],
)
def test_what_cannot_work_is_refused_anywhere(load, settings: dict[str, str], name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"PITLANE_{name}"):
        load(**settings)


@pytest.mark.parametrize(
    ("unknown", "hint"),
    [
        ("PRIORITY_WINDOW", "PITLANE_PRIORITY_WINDOW_S"),
        ("STRIPE_KEY", "PITLANE_STRIPE_SECRET_KEY"),
        ("TRUSTED_PROXY", "PITLANE_TRUSTED_PROXIES"),
        ("QQQQQQQQQQQQ", "docs/settings.md"),
    ],
)
def test_a_name_that_is_no_setting_is_refused_with_what_was_meant(load, tmp_path, unknown: str, hint: str) -> None:
    with pytest.raises(ConfigurationError, match=f"PITLANE_{unknown}, in the environment, .*{hint}"):
        load(**{unknown: "1"})
    (tmp_path / ".env").write_text(f"PITLANE_{unknown}=1\nOTHER=2\n")
    with pytest.raises(ConfigurationError, match=rf"PITLANE_{unknown}, in \.env, .*{hint}"):
        load()


def test_names_are_read_in_any_case_and_those_of_our_clients_are_left_alone(load, tmp_path) -> None:
    (tmp_path / ".env").write_text("pitlane_port=8123\nPITLANE_URL=http://127.0.0.1:8123\n")
    assert load(TOKEN="abc").port == 8123


@pytest.mark.parametrize("is_demo", [False, True])
def test_a_stand_in_that_the_network_could_reach_is_refused_unless_that_is_wanted(load, is_demo: bool) -> None:
    for host in ("127.0.0.1", "localhost", "::1"):
        load(HOST=host).check_exposure(is_demo=is_demo)
    for host in ("0.0.0.0", "::", "192.168.1.5", "pitlane.example"):
        with pytest.raises(ConfigurationError, match=r"PITLANE_HOST .* PITLANE_STANDIN_ON_NETWORK"):
            load(HOST=host).check_exposure(is_demo=is_demo)
        load(HOST=host, STANDIN_ON_NETWORK="yes").check_exposure(is_demo=is_demo)


def test_a_real_stripe_may_be_on_the_network_but_the_demo_may_not(load) -> None:
    real = load(HOST="0.0.0.0", STRIPE_SECRET_KEY="sk_test_x", STRIPE_WEBHOOK_SECRET="whsec_x")
    real.check_exposure(is_demo=False)
    with pytest.raises(ConfigurationError, match="PITLANE_HOST"):
        real.check_exposure(is_demo=True)


def test_no_secret_that_our_own_pages_show_is_accepted_in_production(load) -> None:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    shown = {
        found for page in pages for found in re.findall(r"PITLANE_SECRET_KEY=[\"']?([^\s\"'`]+)", page.read_text())
    }
    for key in sorted(shown):
        with pytest.raises(ConfigurationError, match="PITLANE_SECRET_KEY"):
            load(**PRODUCTION | {"SECRET_KEY": key})
