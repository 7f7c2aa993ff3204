"""A finished encoder made better on a user's own text, without labels: :func:`distilface_st.adapt`."""
