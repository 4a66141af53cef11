"""The applications as gunicorn finds them, in processes of its own."""

from __future__ import annotations

from tests.production import apps

flask = apps.flask_app()
django = apps.django_app()
