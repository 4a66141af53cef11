"""The applications as gunicorn imports them, in its own processes."""

from __future__ import annotations

from tests.production import apps

flask = apps.flask_app()
django = apps.django_app()
